"""What an operator wants to know about the application: the answer of ``/v1/ops``.

Every replica remembers what it recorded during the last half hour
(``serving.recent_metrics``). Here the reports of all replicas become one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from serve_app.serving.metrics import (
    DRAIN_SECONDS,
    IMAGES,
    MESSAGES_IN_FLIGHT,
    OLDEST_RECEIVED_SECONDS,
    QUEUE_MESSAGES,
    STAGE_SECONDS,
    Metric,
)
from serve_app.serving.recent_metrics import (
    MOST_FAILURES,
    SLOT_S,
    SLOTS,
    RecentReport,
    add_buckets,
    quantile,
)

_RATE_SLOTS = 6
"""Slots of which the present rate is the mean: those of the last whole minute."""
_GAUGE_SLOTS = 3
"""Slots for which a value of a gauge holds. The backlog is read every 15 s."""
_STOPPING = "STOPPING"
_RUNNING = "RUNNING"


class QueueState(BaseModel):
    """The messages of the queue."""

    waiting: int = Field(description="Messages that wait, as SQS counts them.")
    in_flight: int = Field(description="Messages that consumers hold, as SQS counts them.")
    oldest_s: float = Field(
        description="Age, in seconds, of the oldest message of the last receives."
    )
    drained_in_s: float | None = Field(
        description="Seconds until the backlog is empty at the rate of the last minute. Null if "
        "nothing was processed."
    )
    policy_drained_in_s: float | None = Field(
        description="Seconds in which the replicas that run or start drain the backlog, as the "
        "autoscaling policy computes it for the slowest deployment. Null without autoscaling."
    )


class Stage(BaseModel):
    """The time of one stage of the pipeline during the last five minutes."""

    name: str
    images: int = Field(description="Number of images that went through it.")
    median_s: float = Field(description="Median, in seconds, estimated from a histogram.")
    p95_s: float = Field(description="95th percentile, in seconds, estimated from a histogram.")


class Replicas(BaseModel):
    """The replicas of one deployment."""

    deployment: str
    wanted: int = Field(description="Number of replicas that Serve keeps or starts.")
    running: int = Field(description="Number of replicas that have started.")
    states: dict[str, int] = Field(description="Number of replicas in each state of Serve.")


class Failure(BaseModel):
    """An image that failed, or a request that was answered with an error."""

    at: datetime
    way_in: str = Field(description="queue or http.")
    code: str
    message: str
    subject: str = Field(description="Source of the job, or method and path of the request.")
    job_id: str
    run_id: str


class Moment(BaseModel):
    """Ten seconds of the last half hour."""

    at: datetime = Field(description="Their beginning.")
    done: float = Field(description="Images per second with a result.")
    failed: float = Field(description="Images per second without one.")
    waiting: int | None = Field(description="Messages that wait. Null if nobody read it.")
    in_flight: int | None = Field(description="Jobs that run. Null if no consumer recorded it.")


class Operations(BaseModel):
    """What the application did during the last half hour, and how it is now."""

    at: datetime
    images_per_s: float = Field(description="Images per second during the last minute.")
    outcomes: dict[str, int] = Field(description="Images of the last half hour, by outcome.")
    failures_by_code: dict[str, int] = Field(description="Failed images, by error code.")
    backlog: QueueState | None = Field(description="The queue. Null if none is served or read.")
    stages: list[Stage]
    replicas: list[Replicas]
    ingest: dict[str, Any] | None = Field(
        description="Health of the consumers, as in `/readyz`. Null if no queue is served."
    )
    last_failures: list[Failure]
    history: list[Moment] = Field(description="The last half hour, the oldest first.")


def describe_replicas(deployment: str, states: dict[str, int]) -> Replicas:
    """Return the replicas of a deployment by the states that Serve counts."""
    present = {state: number for state, number in states.items() if number}
    return Replicas(
        deployment=deployment,
        wanted=sum(number for state, number in present.items() if state != _STOPPING),
        running=present.get(_RUNNING, 0),
        states=present,
    )


def summarize_operations(
    reports: Sequence[RecentReport],
    replicas: list[Replicas],
    ingest: dict[str, Any] | None,
    now_s: float,
) -> Operations:
    """Return one answer from the reports of all replicas.

    Args:
        reports: Reports of the replicas that answered, and what the others have stored.
        replicas: Replicas of each deployment.
        ingest: Health of the consumers. None if no queue is served.
        now_s: The present time, in seconds since 1970.
    """
    present = int(now_s) // SLOT_S
    slots = range(present - SLOTS + 1, present + 1)
    done, failed = _images(reports, failed=False), _images(reports, failed=True)
    rate = _rate(done, present) + _rate(failed, present)
    waiting = _gauge(reports, QUEUE_MESSAGES, ("visible",), max)
    in_flight = _gauge(reports, MESSAGES_IN_FLIGHT, (), sum)
    return Operations(
        at=_time(now_s),
        images_per_s=round(rate, 2),
        outcomes=_count(reports, 1),
        failures_by_code=_count(reports, 2),
        backlog=_backlog(reports, present),
        stages=_stages(reports),
        replicas=replicas,
        ingest=ingest,
        last_failures=_failures(reports),
        history=[
            Moment(
                at=_time(slot * SLOT_S),
                done=round(done.get(slot, 0) / SLOT_S, 2),
                failed=round(failed.get(slot, 0) / SLOT_S, 2),
                waiting=_latest(waiting, slot),
                in_flight=_latest(in_flight, slot),
            )
            for slot in slots
        ],
    )


def _images(
    reports: Sequence[RecentReport], *, failed: bool, way_in: str | None = None
) -> dict[int, float]:
    """Return the images of each slot that failed, or that did not."""
    found: defaultdict[int, float] = defaultdict(float)
    for report in reports:
        for (name, labels), by_slot in report.values.counts.items():
            if name != IMAGES.name or way_in not in (None, labels[0]):
                continue
            if (labels[1] == "failed") == failed:
                for slot, number in by_slot.items():
                    found[slot] += number
    return found


def _count(reports: Sequence[RecentReport], label: int) -> dict[str, int]:
    """Return the images by the value of a label, the most frequent first."""
    found: Counter[str] = Counter()
    for report in reports:
        for (name, labels), by_slot in report.values.counts.items():
            if name == IMAGES.name and labels[label]:
                found[labels[label]] += round(sum(by_slot.values()))
    return dict(found.most_common())


def _rate(by_slot: dict[int, float], present: int) -> float:
    """Return the mean per second over the last whole slots. The present one is not over."""
    last = range(present - _RATE_SLOTS, present)
    return sum(by_slot.get(slot, 0) for slot in last) / (_RATE_SLOTS * SLOT_S)


def _gauge(
    reports: Sequence[RecentReport], metric: Metric, labels: tuple[str, ...], join: Any
) -> dict[int, int]:
    """Return a gauge by slot, joined over the replicas that recorded it there."""
    values: defaultdict[int, list[float]] = defaultdict(list)
    for report in reports:
        for slot, value in report.values.gauges.get((metric.name, labels), {}).items():
            values[slot].append(value)
    return {slot: round(join(each)) for slot, each in values.items()}


def _latest(by_slot: dict[int, int], present: int) -> int | None:
    """Return the last value of a gauge at a slot, unless it is older than what it is read for."""
    for slot in range(present, present - _GAUGE_SLOTS, -1):
        if slot in by_slot:
            return by_slot[slot]
    return None


def _backlog(reports: Sequence[RecentReport], present: int) -> QueueState | None:
    waiting, held = (
        _latest(_gauge(reports, QUEUE_MESSAGES, (state,), max), present)
        for state in ("visible", "not_visible")
    )
    if waiting is None or held is None:
        return None
    images = (_images(reports, failed=failed, way_in="queue") for failed in (False, True))
    rate = sum(_rate(each, present) for each in images)
    left = waiting + held
    oldest = _latest(_gauge(reports, OLDEST_RECEIVED_SECONDS, (), max), present)
    return QueueState(
        waiting=waiting,
        in_flight=held,
        oldest_s=oldest or 0,
        drained_in_s=0 if not left else round(left / rate, 1) if rate else None,
        policy_drained_in_s=_by_the_policy(reports, present),
    )


def _by_the_policy(reports: Sequence[RecentReport], present: int) -> float | None:
    """Return the longest of the times that the policy computed lately for its deployments."""
    latest = [
        by_slot[max(by_slot)]
        for report in reports
        for (name, _), by_slot in report.values.gauges.items()
        if name == DRAIN_SECONDS.name and max(by_slot) > present - _GAUGE_SLOTS
    ]
    return round(max(latest), 1) if latest else None


def _stages(reports: Sequence[RecentReport]) -> list[Stage]:
    buckets: dict[str, tuple[int, ...]] = {}
    for report in reports:
        for (name, labels), by_slot in report.values.distributions.items():
            if name == STAGE_SECONDS.name:
                for counted in by_slot.values():
                    buckets[labels[0]] = add_buckets(buckets.get(labels[0], ()), counted)
    bounds = STAGE_SECONDS.buckets
    return [
        Stage(
            name=stage,
            images=sum(counted),
            median_s=round(quantile(counted, bounds, 0.5), 4),
            p95_s=round(quantile(counted, bounds, 0.95), 4),
        )
        for stage, counted in buckets.items()
    ]


def _failures(reports: Sequence[RecentReport]) -> list[Failure]:
    found = sorted(
        (each for report in reports for each in report.failures), key=lambda each: -each.at_s
    )
    return [
        Failure(
            at=_time(each.at_s),
            way_in=each.way_in,
            code=each.code,
            message=each.message,
            subject=each.subject,
            job_id=each.job_id,
            run_id=each.run_id,
        )
        for each in found[:MOST_FAILURES]
    ]


def _time(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
