"""The backlog policy within Serve's autoscaling: decisions, errors and the thread that reads."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import pytest
from pydantic import ValidationError
from ray.serve._private.common import DeploymentID
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from ingest.scaling.policy import BacklogHealth, BacklogPolicy
from ingest.scaling.scaler import BacklogReading
from ingest.scaling.scaling_metrics import ScalingMetrics
from serve_app.errors import QueueUnavailable
from serve_app.serving.metrics import (
    DRAIN_SECONDS,
    IMAGE_SECONDS,
    QUEUE_MESSAGES,
    REPLICAS_NEEDED,
)
from serve_app.serving.scaling_trouble import TroubleNotStored
from serve_app.serving.service_time import SECONDS_PER_IMAGE
from tests.support.recorded_metrics import RecordedMetrics

SETTINGS: dict[str, Any] = {
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
    """Return a policy as the controller has it: pickled, loaded and instantiated."""
    kwargs = {"settings": {**SETTINGS, "queue_url": queue_url}}
    policy = AutoscalingPolicy(policy_function=BacklogPolicy, policy_kwargs=kwargs)
    return policy.get_policy()(**policy.policy_kwargs)


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
    assert time.perf_counter() - started_at < 1
    del policy
    gc.collect()
    for thread in readers():
        thread.join(30)
    assert readers() == []


def test_the_health_hears_of_three_failures_in_a_row_and_of_their_end() -> None:
    told: list[tuple[str, str | None]] = []
    health = BacklogHealth("q", lambda url, trouble: told.append((url, trouble)))
    denied = QueueUnavailable("q: GetQueueAttributes: AccessDenied")
    health.note_success()
    assert told == [("q", None)], "an earlier controller may have told of something else"
    for _ in range(5):
        health.note_failure(denied)
        health.note_failure(denied)
        health.note_success()
    assert told == [("q", None)]
    for _ in range(9):
        health.note_failure(denied)
    [(_, trouble)] = told[1:]
    assert trouble is not None
    assert trouble.startswith("autoscaling: ")
    assert "AccessDenied" in trouble
    health.note_success()
    assert told[2:] == [("q", None)]


def test_what_the_health_could_not_hear_is_told_again() -> None:
    told: list[str | None] = []
    deaf = True

    def tell(_: str, trouble: str | None) -> None:
        if deaf:
            raise TroubleNotStored("Ray's key-value store does not answer")
        told.append(trouble)

    health = BacklogHealth("q", tell)
    for _ in range(3):
        health.note_failure(QueueUnavailable("denied"))
    assert told == []
    deaf = False
    health.note_failure(QueueUnavailable("denied"))
    assert len(told) == 1


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="slots"):
        BacklogPolicy({**SETTINGS, "slots": 0})
    with pytest.raises(ValidationError, match="drain"):
        BacklogPolicy({**SETTINGS, "drain": 1})


def test_decisions_and_the_time_to_drain_are_recorded() -> None:
    recorded = RecordedMetrics()
    metrics = ScalingMetrics(recorded)
    metrics.record_decision("Segmenter", 7, 0.5)
    reading = BacklogReading(waiting=90, in_flight=10, at_s=0)
    metrics.record_backlog("Segmenter", reading, 0.5, 2)
    # Without replicas, nothing is drained.
    metrics.record_backlog("CutoutPipeline", reading, 0.5, 0)
    assert recorded.values(REPLICAS_NEEDED) == {("Segmenter",): 7}
    assert recorded.values(IMAGE_SECONDS) == {("Segmenter",): 0.5}
    assert recorded.values(DRAIN_SECONDS) == {("Segmenter",): 25}
    assert recorded.values(QUEUE_MESSAGES) == {("visible",): 90, ("not_visible",): 10}
