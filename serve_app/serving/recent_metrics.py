"""What a process has recorded during the last half hour, for the operations page.

Ray exports metrics, and keeps none. Each process therefore remembers a few of its own in slots of
ten seconds, which are the same in every process, so that ``http.operations`` can add them up.
``kept_reports`` stores them for the time after its end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal, TypeVar

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

SLOT_S = 10
"""Length of a slot in seconds. Slot n began n times as long after 1970."""
SLOTS = 180
"""Slots that are remembered: those of half an hour."""
DISTRIBUTION_SLOTS = 30
"""Slots of which distributions are given: those of five minutes."""

REMEMBERED = frozenset(
    {
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
    }
)
"""The metrics that are remembered."""

MOST_FAILURES = 20
"""Failures that one replica remembers."""

Series = tuple[str, tuple[str, ...]]
"""Name of a metric and the values of its labels."""
_Value = TypeVar("_Value")
Note = tuple[Metric, tuple[str, ...], float]
"""A metric, the values of its labels, and what was recorded."""


@dataclass(frozen=True, slots=True)
class RecentValues:
    """What one process has recorded lately."""

    counts: dict[Series, dict[int, float]] = field(default_factory=dict)
    """Sums of counters by slot."""
    gauges: dict[Series, dict[int, float]] = field(default_factory=dict)
    """Last values of gauges by slot."""
    distributions: dict[Series, dict[int, tuple[int, ...]]] = field(default_factory=dict)
    """Observations in each bucket of a histogram, and beyond the last one, by slot."""


@dataclass(frozen=True, slots=True)
class RecentFailure:
    """An image that failed, or a request that was answered with an error."""

    at_s: float
    """Time, in seconds since 1970."""
    way_in: Literal["queue", "http"]
    code: str
    """Code of the error."""
    message: str
    """Message of the error."""
    subject: str
    """What failed: the source of a job, or the method and path of a request."""
    job_id: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class RecentReport:
    """The report of one replica about the last half hour."""

    values: RecentValues = RecentValues()
    failures: tuple[RecentFailure, ...] = ()
    """The last failures of the replica, at most ``MOST_FAILURES``."""
    replica: str = ""
    """Unique id of the replica. Empty if it is another process, or has ended."""


class _Slot:
    def __init__(self, number: int) -> None:
        self.number = number
        self.counts: dict[Series, float] = {}
        self.gauges: dict[Series, float] = {}
        self.distributions: dict[Series, list[int]] = {}


class RecentMetrics:
    """Remembers what a process records. Every thread may call it."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Remember nothing yet.

        Args:
            now_s: Function that returns the seconds since 1970.
        """
        self._now_s = now_s
        self._slots: deque[_Slot] = deque(maxlen=SLOTS)
        self._lock = Lock()

    def note(self, notes: Iterable[Note]) -> None:
        """Remember what was recorded just now."""
        kept = [note for note in notes if note[0] in REMEMBERED]
        if not kept:
            return
        with self._lock:
            slot = self._present_slot()
            for metric, labels, value in kept:
                _add(slot, metric, labels, value)

    def values(self) -> RecentValues:
        """Return what is remembered."""
        found = RecentValues()
        with self._lock:
            for slot in self._slots:
                for series, count in slot.counts.items():
                    found.counts.setdefault(series, {})[slot.number] = count
                for series, value in slot.gauges.items():
                    found.gauges.setdefault(series, {})[slot.number] = value
                for series, buckets in slot.distributions.items():
                    found.distributions.setdefault(series, {})[slot.number] = tuple(buckets)
        return without_old_slots(found, self._now_s())

    def _present_slot(self) -> _Slot:
        number = int(self._now_s()) // SLOT_S
        while self._slots and self._slots[-1].number > number:
            # The clock was ahead. What is recorded from now on belongs to the present.
            self._slots.pop()
        if not self._slots or self._slots[-1].number < number:
            self._slots.append(_Slot(number))
        return self._slots[-1]


def without_old_slots(values: RecentValues, now_s: float) -> RecentValues:
    """Return values without the slots that are too old to be remembered.

    Args:
        values: What a process has recorded.
        now_s: The present time, in seconds since 1970.
    """
    present = int(now_s) // SLOT_S
    return RecentValues(
        counts=_since(values.counts, present - SLOTS),
        gauges=_since(values.gauges, present - SLOTS),
        distributions=_since(values.distributions, present - DISTRIBUTION_SLOTS),
    )


def last_slot(values: RecentValues) -> int | None:
    """Return the newest slot in which anything was recorded, or None."""
    every = (values.counts, values.gauges, values.distributions)
    return max(
        (slot for some in every for by_slot in some.values() for slot in by_slot), default=None
    )


def add_buckets(some: Iterable[int], others: Iterable[int]) -> tuple[int, ...]:
    """Return the sums of the buckets of two histograms, one of which may have none."""
    first, second = tuple(some), tuple(others)
    if not first or not second:
        return first or second
    return tuple(a + b for a, b in zip(first, second, strict=True))


def quantile(buckets: Iterable[int], bounds: tuple[float, ...], share: float) -> float:
    """Return a quantile of a histogram, as ``histogram_quantile`` of Prometheus estimates it.

    Args:
        buckets: Observations in each bucket, and beyond the last bound.
        bounds: Upper bounds of the buckets.
        share: Share of the observations that are smaller, from 0 to 1.

    Returns:
        Value in the unit of the bounds, evenly interpolated in its bucket. The last bound if it is
        beyond. 0 if there are no observations.
    """
    counted = tuple(buckets)
    rank = share * sum(counted)
    below, lower = 0, 0.0
    for count, upper in zip(counted, bounds, strict=False):
        if count and below + count >= rank:
            return lower + (upper - lower) * (rank - below) / count
        below, lower = below + count, upper
    return bounds[-1] if sum(counted) else 0.0


def _since(
    series: Mapping[Series, Mapping[int, _Value]], after: int
) -> dict[Series, dict[int, _Value]]:
    kept = {
        each: {slot: value for slot, value in by_slot.items() if slot > after}
        for each, by_slot in series.items()
    }
    return {each: by_slot for each, by_slot in kept.items() if by_slot}


def _add(slot: _Slot, metric: Metric, labels: tuple[str, ...], value: float) -> None:
    series = (metric.name, labels)
    if metric.kind == "counter":
        slot.counts[series] = slot.counts.get(series, 0.0) + max(0.0, value)
    elif metric.kind == "gauge":
        slot.gauges[series] = value
    else:
        buckets = slot.distributions.setdefault(series, [0] * (len(metric.buckets) + 1))
        buckets[bisect_left(metric.buckets, value)] += 1
