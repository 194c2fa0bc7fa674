"""Replicas that are killed during a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import ray

from serve_app.contracts.outcome import Outcome
from tests.support.images import book, jpeg
from tests.support.running_app import App, replica_actors

JOBS = 60
_NAMESPACE = "serve"


def kill(deployment: str) -> None:
    [name] = replica_actors(deployment)
    ray.kill(ray.get_actor(name, namespace=_NAMESPACE))


@pytest.mark.parametrize("deployment", ["Segmenter-folio", "CutoutPipeline"])
def test_a_killed_replica_costs_no_image(app: App, deployment: str) -> None:
    before = replica_actors(deployment)
    data = {f"{n:02d}.jpg": jpeg(book(n).image, comment=f"{n}".encode()) for n in range(JOBS)}
    app.dead_letters()
    monitor = app.send(app.put(data))
    killed = False
    for status in app.follow(monitor):
        if not killed and status.finished >= JOBS // 6:
            assert status.finished < JOBS, "the run was over before the replica was killed"
            kill(deployment)
            killed = True
    assert killed
    run = app.finish(monitor)
    assert len(run.outcomes) == JOBS
    failures = _having(run.outcomes, lambda outcome: outcome.status == "failed")
    assert failures == {}
    assert len({outcome.output_key for outcome in run.outcomes.values()}) == JOBS
    assert app.dead_letters() == []
    assert replica_actors(deployment) != before
    assert app.post(data["00.jpg"]).status_code == 200


def _having(
    outcomes: dict[str, Outcome], condition: Callable[[Outcome], bool]
) -> dict[str, Outcome]:
    return {name: outcome for name, outcome in outcomes.items() if condition(outcome)}
