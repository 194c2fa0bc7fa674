"""The tuner's hold on a running application: what changes without a restart, and what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from ingest.local.application import APPLICATION
from loadtests.tuner.target import Target, own_ray
from loadtests.tuner.trials import Setting
from serve_app.errors import InternalError
from tests.support.images import book, jpeg


def replicas(target: Target, deployment: str) -> set[str]:
    """Return the ids of a deployment's replicas."""
    found: Any = target._get()["applications"][APPLICATION]["deployments"][deployment]
    return {replica["replica_id"] for replica in found["replicas"]}


@pytest.mark.slow
def test_settings_are_applied_to_a_running_application() -> None:
    args = {"models": ["folio"], "http": {"max_concurrent": 8}}
    with own_ray(args) as target:

        def answer() -> httpx.Response:
            with httpx.Client(trust_env=False, timeout=60) as client:
                params = {"min_subject_px": "1"}
                return client.post(
                    f"{target.http}/v1/cutout", content=jpeg(book().image), params=params
                )

        first = Setting(threads=1)
        target.apply(first)
        assert answer().status_code == 200
        segmenters, pipelines = replicas(target, "Segmenter-folio"), replicas(
            target, "CutoutPipeline"
        )  # fmt: skip

        more = replace(first, threads=2, segmenters=2, max_ongoing=16)
        target.apply(more)
        assert len(replicas(target, "Segmenter-folio")) == 2
        assert segmenters < replicas(target, "Segmenter-folio")
        assert pipelines == replicas(target, "CutoutPipeline")

        stacked = Setting("stack", threads=2, max_batch_size=4)
        target.apply(stacked)
        assert not segmenters & replicas(target, "Segmenter-folio")
        assert answer().status_code == 200

        target.apply(Setting(placement="pipeline", threads=1))
        assert not pipelines & replicas(target, "CutoutPipeline")
        assert "Segmenter-folio" not in target._get()["applications"][APPLICATION]["deployments"]
        assert answer().status_code == 200

        with pytest.raises(InternalError, match="threads"):
            target.apply(replace(first, threads=0))
        target.apply(first)
        assert answer().status_code == 200
