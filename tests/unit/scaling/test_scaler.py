"""The backlog policy: its arithmetic, its memory, and its way through Serve's own machinery."""

from __future__ import annotations

import gc
import math
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from ingest.scaling.policy import BacklogPolicy
from ingest.scaling.scaler import BacklogReading, Demand, Goals, Scaler, replicas_needed
from serve_app import app
from serve_app.config import AppConfig, PipelineConfig
from serve_app.errors import InvalidConfig
from serve_app.pipeline.image_pipeline import replica_s
from serve_app.serving.service_time import SECONDS_PER_IMAGE, ServiceTime

GOALS = Goals(drain_s=100, answer_s=10, late_after_s=20, away_after_s=300)

amounts = st.floats(0, 1e7)
replicas = st.integers(1, 500)


def needed(backlog: float = 0, ongoing: float = 0, current: int = 1, dispatched: float = 0) -> int:
    return replicas_needed(Demand(backlog, ongoing, dispatched), GOALS, 0.5, 2, current)


@pytest.mark.parametrize(
    ("backlog", "ongoing", "current", "expected"),
    [
        (0, 0, 5, 0),
        (200, 0, 1, 1),  # 200 x 0.5 s = 100 s of work in 100 s
        (201, 0, 1, 2),
        (1000, 0, 1, 5),
        (0, 100, 1, 5),  # 100 requests x 0.5 s in 10 s
        (200, 9, 5, 5),  # nine requests keep five replicas of two slots busy
        (200, 9, 3, 3),  # and ask for none that is not there
        (1000, 2, 9, 5),
    ],
)
def test_the_largest_need_counts(
    backlog: float, ongoing: float, current: int, expected: int
) -> None:
    assert needed(backlog, ongoing, current) == expected


@given(amounts, amounts, replicas)
def test_what_is_asked_for_meets_every_goal_and_not_one_replica_more(
    backlog: float, ongoing: float, current: int
) -> None:
    found = needed(backlog, ongoing, current)

    def enough(count: int) -> bool:
        return (
            backlog * 0.5 / GOALS.drain_s <= count
            and ongoing * 0.5 / GOALS.answer_s <= count
            and min(current, ongoing / 2) <= count
        )

    assert enough(found)
    assert found == 0 or not enough(found - 1)


@given(amounts, amounts, amounts, replicas)
def test_more_to_do_never_needs_fewer(
    backlog: float, more: float, ongoing: float, current: int
) -> None:
    assert needed(backlog + more, ongoing, current) >= needed(backlog, ongoing, current)
    assert needed(backlog, ongoing + more, current) >= needed(backlog, ongoing, current)


def scaler() -> Scaler:
    return Scaler(GOALS, 0.5, 2, now_s=0)


def test_before_the_first_reading_nothing_is_given_up() -> None:
    assert scaler().decide(None, 0, current=7, now_s=10) == 7
    assert scaler().decide(None, 200, current=7, now_s=10) == 10
    assert scaler().decide(None, 0, current=7, now_s=301) == 0


def test_a_late_reading_holds_and_an_old_one_counts_no_longer() -> None:
    reading = BacklogReading(500, 100, at_s=1000)
    decide = scaler().decide
    assert decide(reading, 0, current=5, now_s=1020) == 3
    assert decide(reading, 0, current=5, now_s=1021) == 5
    assert decide(reading, 0, current=2, now_s=1021) == 3
    assert decide(reading, 0, current=5, now_s=1301) == 0
    assert decide(reading, 7, current=5, now_s=1301) == 4


@pytest.mark.parametrize("worthless", [0.0, -1.0, math.nan, math.inf])
def test_what_replicas_measured_replaces_what_was_configured(worthless: float) -> None:
    own = scaler()
    own.measured(2.0)
    own.measured(worthless)
    assert own.decide(BacklogReading(1000, 0, 0), 0, current=1, now_s=1) == 20


def test_pace_is_the_time_of_a_replica_and_follows_changes() -> None:
    pace = ServiceTime(threads=2)
    assert pace.stats() == {}
    pace.add(0.4)
    assert pace.stats() == {SECONDS_PER_IMAGE: 0.2}
    pace.add(1.6, images=8)
    assert pace.stats()[SECONDS_PER_IMAGE] == pytest.approx(0.2 - 0.1 * 8 / 50)
    for _ in range(500):
        pace.add(0.1)
    assert pace.stats()[SECONDS_PER_IMAGE] == pytest.approx(0.05, rel=0.01)


def test_what_the_queue_dispatched_has_the_time_of_the_backlog() -> None:
    own = Scaler(GOALS, 0.5, 2, permits=100, now_s=0)
    assert own.decide(BacklogReading(0, 100, 0), 100, current=1, now_s=1) == 1
    assert own.decide(BacklogReading(0, 100, 0), 140, current=1, now_s=1) == 2
    # The mean of the ongoing requests lags behind the queue, by which they are explained.
    assert own.decide(BacklogReading(0, 0, 50), 100, current=1, now_s=51) == 1
    assert own.decide(BacklogReading(0, 0, 70), 100, current=1, now_s=71) == 5
    # Messages that are hidden for another reason explain no more than there are permits.
    assert own.decide(BacklogReading(0, 5000, 80), 200, current=1, now_s=81) == 25
    assert own.decide(BacklogReading(0, 190, 150), 200, current=1, now_s=151) == 5


def test_matting_has_threads_of_its_own() -> None:
    config = PipelineConfig(threads=2, matting_threads=1)
    stages = {"fetch": 900.0, "decode": 60.0, "segment": 5000.0, "encode": 40.0, "publish": 300.0}
    assert replica_s(stages, config) == pytest.approx(0.05)
    assert replica_s({**stages, "matting": 800.0}, config) == pytest.approx(0.8)


# --- in Serve ---

KWARGS: dict[str, Any] = {
    "drain_s": 100,
    "answer_s": 10,
    "away_after_s": 300,
    "seconds_per_image": 0.5,
    "slots": 2,
    "permits": 64,
    "aws": {"endpoint_url": "http://127.0.0.1:9", "connect_timeout_s": 0.2, "max_attempts": 1},
    "read_period_s": 5,
}


def context(ongoing: Any, target: int, measured: dict[str, float] | None = None) -> Any:
    values = {SECONDS_PER_IMAGE: measured} if measured else {}
    return AutoscalingContext(
        deployment_id=DeploymentID("Segmenter", "foreedge"),
        deployment_name="Segmenter",
        app_name="foreedge",
        current_num_replicas=target,
        target_num_replicas=target,
        running_replicas=[],
        total_num_requests=lambda: ongoing,
        total_queued_requests=0.0,
        aggregated_metrics=lambda: values,
        raw_metrics={},
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=100,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=time.time(),
        config=AutoscalingConfig(max_replicas=100),
    )


def resolved(queue_url: str | None) -> Any:
    """Return a policy as the controller has it: pickled, loaded, made."""
    kwargs = {**KWARGS, "queue_url": queue_url}
    return _resolve_policy_callable(
        AutoscalingPolicy(policy_function=BacklogPolicy, policy_kwargs=kwargs)
    )


def test_without_a_queue_the_requests_decide() -> None:
    policy = resolved(None)
    assert policy(context(100, 2)) == (5, {})
    assert policy(context(0, 2)) == (0, {})


def test_the_measured_pace_is_taken_from_the_replicas() -> None:
    policy = resolved(None)
    assert policy(context(100, 1, {"a": 1.0, "b": 3.0})) == (20, {})


def test_what_raises_keeps_the_replicas_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    policy = resolved(None)
    for _ in range(3):
        assert policy(context("not a number", 4)) == (4, {})
    assert len([record for record in caplog.records if record.exc_info]) == 1
    assert policy(context(100, 4)) == (5, {})


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "backlog"]


def test_a_queue_that_never_answers_neither_blocks_nor_raises_and_its_thread_ends() -> None:
    policy = resolved("http://127.0.0.1:9/000000000000/queue")
    assert len(readers()) == 1
    started_at = time.perf_counter()
    assert policy(context(0, 6)) == (6, {})
    assert policy(context(200, 6)) == (10, {})
    # A call to the queue alone would take longer.
    assert time.perf_counter() - started_at < 0.2
    del policy
    gc.collect()
    for thread in readers():
        thread.join(30)
    assert readers() == []


# --- wiring ---

SETTINGS: dict[str, Any] = {
    "models": ["folio", "u2netp"],
    "queue": {"url": "http://127.0.0.1:9/0/queue"},
    "ledger": {"bucket": "b"},
    "pipeline": {"threads": 2},
    "segmenter": {"threads": 4, "replicas": 2},
    "autoscaling": {"max_replicas": 9, "pixels_s": 0.2, "segment_s": 0.6, "drain_target_s": 630},
}


def deployments(application: Any) -> dict[str, Any]:
    """Return the deployments of an application by name."""
    found: dict[str, Any] = {}

    def visit(bound: Any) -> None:
        deployment = bound._bound_deployment
        found[deployment.name] = deployment
        arguments = [*deployment.init_args, *deployment.init_kwargs.values()]
        for argument in arguments:
            for value in argument.values() if isinstance(argument, dict) else [argument]:
                if hasattr(value, "_bound_deployment"):
                    visit(value)

    visit(application)
    return found


def test_both_deployments_follow_the_backlog_each_by_its_own_time() -> None:
    built = deployments(app.build(SETTINGS))
    scaling = {name: item._deployment_config.autoscaling_config for name, item in built.items()}
    assert scaling["SqsIngest"] is None
    segmenter, pipeline = scaling["Segmenter-folio"], scaling["CutoutPipeline"]
    assert (segmenter.min_replicas, segmenter.max_replicas) == (2, 9)
    assert (pipeline.min_replicas, pipeline.max_replicas) == (1, 9)
    kwargs = segmenter.policy.policy_kwargs
    assert (kwargs["seconds_per_image"], kwargs["slots"]) == (0.15, 4)
    assert (kwargs["drain_s"], kwargs["permits"]) == (600, 64)
    assert kwargs["queue_url"] == SETTINGS["queue"]["url"]
    kwargs = pipeline.policy.policy_kwargs
    assert (kwargs["seconds_per_image"], kwargs["slots"]) == (0.1, pytest.approx(8))
    assert scaling["Segmenter-u2netp"].policy.policy_kwargs["queue_url"] is None
    assert scaling["HttpApi"].target_ongoing_requests == 32


def test_models_inside_of_the_pipeline_scale_with_nothing() -> None:
    settings = {**SETTINGS, "segmenter": {"placement": "pipeline"}}
    with pytest.raises(InvalidConfig, match=r"segmenter\.placement deployment"):
        AppConfig.load(settings)
    del settings["autoscaling"]
    assert set(deployments(app.build(settings))) == {"HttpApi", "SqsIngest", "CutoutPipeline"}


def test_without_the_section_the_replicas_are_fixed() -> None:
    settings = {key: value for key, value in SETTINGS.items() if key != "autoscaling"}
    for name, deployment in deployments(app.build(settings)).items():
        config = deployment._deployment_config
        assert config.autoscaling_config is None
        assert config.num_replicas == (2 if name.startswith("Segmenter") else 1)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"max_replicas": 1}, "autoscaling.max_replicas must be at least 2"),
        ({"drain_target_s": 50}, "twice upscale_delay_s"),
        ({"max_replicas": 0}, "autoscaling.max_replicas"),
    ],
)
def test_settings_that_cannot_be(section: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        AppConfig.load({**SETTINGS, "autoscaling": section})
