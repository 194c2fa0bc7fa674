"""The arithmetic of the backlog policy: how many replicas drain the queue in time."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

_MEMORY_S = 60.0


@dataclass(frozen=True, slots=True)
class Goals:
    """What the replicas are to achieve."""

    drain_s: float
    """In which the messages that wait are worked through."""
    answer_s: float
    """In which the requests that did not come from the queue are answered."""
    late_after_s: float
    """Age of the last reading past which replicas are kept that it would give up."""
    away_after_s: float
    """Age past which the reading counts no longer: the ongoing requests alone decide."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a deployment has to do."""

    backlog: float
    """Messages that wait or are in flight."""
    ongoing: float
    """Requests that wait or are in work at the deployment."""
    dispatched: float
    """Those of them that come from the queue; their time is that of the backlog."""


@dataclass(frozen=True, slots=True)
class BacklogReading:
    """The queue at a moment."""

    waiting: int
    in_flight: int
    at_s: float
    """Of the monotonic clock."""


def replicas_needed(
    demand: Demand, goals: Goals, seconds_per_image: float, slots: float, current: int
) -> int:
    """Return the replicas that meet the goals; bounds and delays are Serve's.

    Three needs, of which the largest counts: the backlog within ``drain_s``; the ongoing requests
    of others within ``answer_s``; and as many of the present replicas as have work. The last one
    is why a backlog is drained in time: without it the replicas would shrink with the backlog,
    which would then fade away and never end. It is also why a steady load keeps its replicas.

    Args:
        demand: What there is to do.
        goals: In which time.
        seconds_per_image: Of one replica that is fully busy.
        slots: Ongoing requests that make a replica fully busy.
        current: Replicas that are there or were asked for.

    Returns:
        At least 0.
    """
    drain = demand.backlog * seconds_per_image / goals.drain_s
    answer = max(0.0, demand.ongoing - demand.dispatched) * seconds_per_image / goals.answer_s
    busy = min(float(current), demand.ongoing / slots)
    return math.ceil(max(drain, answer, busy))


class Scaler:
    """Decides for one deployment. Neither waits nor reads a clock."""

    def __init__(
        self,
        goals: Goals,
        seconds_per_image: float,
        slots: float,
        *,
        permits: float = 0,
        now_s: float,
    ) -> None:
        """Make a scaler.

        Args:
            goals: What the replicas are to achieve.
            seconds_per_image: Of one replica, until ``measured`` says better.
            slots: Ongoing requests that make a replica fully busy.
            permits: Jobs that all ingest actors together have in flight at most.
            now_s: The monotonic clock.
        """
        self._goals = goals
        self._seconds_per_image = seconds_per_image
        self._slots = slots
        self._permits = permits
        self._began_s = now_s
        self._recent: deque[BacklogReading] = deque()

    def measured(self, seconds_per_image: float) -> None:
        """Take over what replicas have measured."""
        if seconds_per_image > 0 and math.isfinite(seconds_per_image):
            self._seconds_per_image = seconds_per_image

    def decide(
        self, reading: BacklogReading | None, ongoing: float, current: int, now_s: float
    ) -> int:
        """Return the replicas that are needed.

        Args:
            reading: The last one of the backlog.
            ongoing: Requests that wait or are in work at the deployment.
            current: Replicas that are there or were asked for.
            now_s: The monotonic clock.
        """
        age_s = now_s - (self._began_s if reading is None else reading.at_s)
        away = age_s > self._goals.away_after_s
        backlog = dispatched = 0.0
        if reading is not None and not away:
            backlog = float(reading.waiting + reading.in_flight)
            dispatched = min(self._permits, self._most_in_flight(reading))
        demand = Demand(backlog, ongoing, dispatched)
        needed = replicas_needed(demand, self._goals, self._seconds_per_image, self._slots, current)
        # Without any reading the controller has just started, perhaps over a busy application.
        late = reading is None or age_s > self._goals.late_after_s
        return max(needed, current) if late and not away else needed

    def _most_in_flight(self, reading: BacklogReading) -> int:
        """Return the most messages in flight of late: ongoing requests are a mean over that."""
        recent = self._recent
        if not recent or recent[-1] != reading:
            recent.append(reading)
            while recent[0].at_s < reading.at_s - _MEMORY_S:
                recent.popleft()
        return max(each.in_flight for each in recent)
