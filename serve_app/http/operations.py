"""What an operator wants to know about the application, from the reports of all replicas.

Every replica remembers what it recorded during the last half hour
(``serving.recent_metrics``). Here the reports of all replicas become one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from serve_app.http.operations_answer import (
    Boundary,
    Failure,
    Moment,
    Operations,
    QueueState,
    Replicas,
    Stage,
)
from serve_app.http.operations_verdict import find_attention, find_notes
from serve_app.serving.metrics import (
    DEAD_LETTERS,
    DRAIN_SECONDS,
    HTTP_REFUSALS,
    IMAGES,
    LEASES_LOST,
    MESSAGES_IN_FLIGHT,
    MESSAGES_RETRIED,
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
_FAILURE_SLOTS = 90
"""Slots in which failures need attention: those of 15 minutes, as in the alerts."""
_BACKLOG_SLOTS = 3
"""Slots for which a reading of the backlog holds. It is read every 15 s."""
_HELD_SLOTS = 2
"""Slots for which a consumer's number of jobs holds. It records it every 5 s, so that it may be
missing in the slot that has just begun."""
_STOPPING = "STOPPING"
_RUNNING = "RUNNING"


def describe_replicas(
    deployment: str, states: dict[str, int], status: str = "HEALTHY", message: str = ""
) -> Replicas:
    """Return the replicas of a deployment as Serve describes them.

    Args:
        deployment: Name of the deployment.
        states: Number of replicas in each state.
        status: Status of the deployment.
        message: What Serve says about the status, or empty.
    """
    present = {state: number for state, number in states.items() if number}
    return Replicas(
        deployment=deployment,
        wanted=sum(number for state, number in present.items() if state != _STOPPING),
        running=present.get(_RUNNING, 0),
        states=present,
        status=status,
        message=message,
    )


def summarize_operations(
    reports: Sequence[RecentReport],
    replicas: list[Replicas] | None,
    ingest: dict[str, Any] | None,
    now_s: float,
) -> Operations:
    """Return one answer from the reports of all replicas.

    Args:
        reports: Reports of the replicas that answered, and what the others have stored.
        replicas: Replicas of each deployment. None if Serve's controller does not answer.
        ingest: Health of the consumers. None if no queue is served.
        now_s: The present time, in seconds since 1970.
    """
    present = int(now_s) // SLOT_S
    images = _images_by_slot(reports)
    boundaries = [Boundary(**each) for each in (ingest or {}).get("boundaries", [])]
    backlog, history = _backlog(reports, images, present), _history(reports, images, present)
    failed = _failed_lately(images, present)
    return Operations(
        at=_time(now_s),
        attention=find_attention(boundaries, replicas, ingest, backlog, history, failed),
        notes=find_notes(replicas or ()),
        images_per_s=round(_rate(_joined(images), present), 2),
        outcomes=_count(reports, IMAGES, 1),
        failures_by_code=_count(reports, IMAGES, 2),
        retries_by_code=_count(reports, MESSAGES_RETRIED, 0),
        refusals_by_code=_count(reports, HTTP_REFUSALS, 0),
        dead_letters=_total(reports, DEAD_LETTERS),
        leases_lost=_total(reports, LEASES_LOST),
        backlog=backlog,
        boundaries=boundaries,
        stages=_stages(reports),
        replicas=replicas or [],
        ingest=ingest,
        last_failures=_failures(reports),
        history=history,
    )


# --- counters ---

_Images = dict[tuple[str, str], dict[int, float]]
"""Images of each slot by way in and error code, which is empty if they did not fail."""


def _images_by_slot(reports: Sequence[RecentReport]) -> _Images:
    found: defaultdict[tuple[str, str], defaultdict[int, float]]
    found = defaultdict(lambda: defaultdict(float))
    for report in reports:
        for (name, labels), by_slot in report.values.counts.items():
            if name == IMAGES.name:
                way_in, _, code, _ = labels
                for slot, number in by_slot.items():
                    found[way_in, code][slot] += number
    return {key: dict(by_slot) for key, by_slot in found.items()}


def _joined(
    images: _Images, *, failed: bool | None = None, way_in: str | None = None
) -> dict[int, float]:
    """Return the images of each slot that failed, that did not, or both, of one way in or both."""
    found: defaultdict[int, float] = defaultdict(float)
    for (way, code), by_slot in images.items():
        if failed in (None, bool(code)) and way_in in (None, way):
            for slot, number in by_slot.items():
                found[slot] += number
    return found


def _failed_lately(images: _Images, present: int) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the images of the last slots that failed, and all of their way in."""
    lately = {
        key: sum(number for slot, number in by_slot.items() if slot > present - _FAILURE_SLOTS)
        for key, by_slot in images.items()
    }
    ways: Counter[str] = Counter()
    for (way_in, _), number in lately.items():
        ways[way_in] += round(number)
    return {
        (way_in, code): (round(number), ways[way_in])
        for (way_in, code), number in lately.items()
        if code
    }


def _count(reports: Sequence[RecentReport], metric: Metric, label: int) -> dict[str, int]:
    """Return a counter by the value of a label, the most frequent first."""
    found: Counter[str] = Counter()
    for report in reports:
        for (name, labels), by_slot in report.values.counts.items():
            if name == metric.name and labels[label]:
                found[labels[label]] += round(sum(by_slot.values()))
    return dict(found.most_common())


def _total(reports: Sequence[RecentReport], metric: Metric) -> int:
    counts = (report.values.counts.get((metric.name, ()), {}) for report in reports)
    return round(sum(sum(by_slot.values()) for by_slot in counts))


def _rate(by_slot: dict[int, float], present: int) -> float:
    """Return the mean per second over the last whole slots. The present one is not over."""
    last = range(present - _RATE_SLOTS, present)
    return sum(by_slot.get(slot, 0) for slot in last) / (_RATE_SLOTS * SLOT_S)


# --- gauges ---


def _largest(
    reports: Sequence[RecentReport], metric: Metric, labels: tuple[str, ...] = ()
) -> dict[int, float]:
    """Return a gauge by slot that several replicas record of the same thing."""
    found: dict[int, float] = {}
    for report in reports:
        for slot, value in report.values.gauges.get((metric.name, labels), {}).items():
            found[slot] = max(value, found.get(slot, value))
    return found


def _sum_of_held(reports: Sequence[RecentReport], metric: Metric) -> dict[int, float]:
    """Return a gauge by slot that each replica records of itself, added up.

    A replica may not have recorded it yet in a slot that others have. Its last value counts then,
    as it does in the first slot after the replica's end.
    """
    found: defaultdict[int, float] = defaultdict(float)
    for report in reports:
        by_slot = report.values.gauges.get((metric.name, ()), {})
        held: dict[int, float] = {}
        for slot, value in sorted(by_slot.items()):
            held.update(dict.fromkeys(range(slot, slot + _HELD_SLOTS), value))
        for slot, value in held.items():
            found[slot] += value
    return dict(found)


def _latest(by_slot: dict[int, float], present: int) -> int | None:
    """Return the last reading at a slot, unless it is too old."""
    for slot in range(present, present - _BACKLOG_SLOTS, -1):
        if slot in by_slot:
            return round(by_slot[slot])
    return None


def _backlog(reports: Sequence[RecentReport], images: _Images, present: int) -> QueueState | None:
    waiting, held = (
        _latest(_largest(reports, QUEUE_MESSAGES, (state,)), present)
        for state in ("visible", "not_visible")
    )
    if waiting is None or held is None:
        return None
    rate = _rate(_joined(images, way_in="queue"), present)
    left = waiting + held
    return QueueState(
        waiting=waiting,
        in_flight=held,
        oldest_s=_latest(_largest(reports, OLDEST_RECEIVED_SECONDS), present) or 0,
        drained_in_s=0 if not left else round(left / rate, 1) if rate else None,
        policy_drained_in_s=_by_the_policy(reports, present),
    )


def _by_the_policy(reports: Sequence[RecentReport], present: int) -> float | None:
    """Return the longest of the times that the policy computed lately for its deployments."""
    latest = [
        by_slot[max(by_slot)]
        for report in reports
        for (name, _), by_slot in report.values.gauges.items()
        if name == DRAIN_SECONDS.name and max(by_slot) > present - _BACKLOG_SLOTS
    ]
    return round(max(latest), 1) if latest else None


def _history(reports: Sequence[RecentReport], images: _Images, present: int) -> list[Moment]:
    done, failed = _joined(images, failed=False), _joined(images, failed=True)
    waiting = _largest(reports, QUEUE_MESSAGES, ("visible",))
    in_flight = _sum_of_held(reports, MESSAGES_IN_FLIGHT)
    return [
        Moment(
            at=_time(slot * SLOT_S),
            done=round(done.get(slot, 0) / SLOT_S, 2),
            failed=round(failed.get(slot, 0) / SLOT_S, 2),
            waiting=_latest(waiting, slot),
            in_flight=round(in_flight[slot]) if slot in in_flight else None,
        )
        for slot in range(present - SLOTS + 1, present + 1)
    ]


# --- stages and failures ---


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
