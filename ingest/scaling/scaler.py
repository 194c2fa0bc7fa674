"""The arithmetic of the backlog policy: how many replicas drain the queue in time."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

_MEMORY_S = 60.0


@dataclass(frozen=True, slots=True)
class Goals:
    """What the replicas of a deployment must achieve."""

    drain_s: float
    """Time in which the waiting messages must be processed."""
    answer_s: float
    """Time in which the requests that did not come from the queue must be answered."""
    late_after_s: float
    """Age in seconds from which a reading may add replicas but no longer remove them."""
    away_after_s: float
    """Age in seconds from which a reading is ignored and the ongoing requests alone decide."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The work of a deployment at one moment."""

    backlog: float
    """Messages that wait or are in flight."""
    ongoing: float
    """Requests that wait at the deployment or are being processed there."""
    dispatched: float
    """Ongoing requests that come from the queue and may take as long as the backlog."""


@dataclass(frozen=True, slots=True)
class BacklogReading:
    """The backlog of the queue at one moment."""

    waiting: int
    in_flight: int
    at_s: float
    """Time of the reading by the monotonic clock."""


def replicas_needed(
    demand: Demand, goals: Goals, seconds_per_image: float, slots: float, current: int
) -> int:
    """Return the number of replicas that meet the goals. Serve applies bounds and delays.

    It is the largest of three needs: to drain the backlog within ``drain_s``, to answer the other
    ongoing requests within ``answer_s``, and to keep as many of the present replicas as have work.
    The third is why a backlog is drained in time. Without it the replicas would shrink along with
    the backlog, which would then fade ever more slowly and never end. It also keeps the replicas
    of a steady load.

    Args:
        demand: The present work.
        goals: The times in which it must be done.
        seconds_per_image: Seconds that one fully busy replica needs per image.
        slots: Ongoing requests that make a replica fully busy.
        current: Replicas that run or have been requested.

    Returns:
        A number of at least 0.
    """
    drain = demand.backlog * seconds_per_image / goals.drain_s
    answer = max(0.0, demand.ongoing - demand.dispatched) * seconds_per_image / goals.answer_s
    busy = min(float(current), demand.ongoing / slots)
    return math.ceil(max(drain, answer, busy))


class Scaler:
    """Decides on the replicas of one deployment. It never waits and reads no clock."""

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
            goals: What the replicas must achieve.
            seconds_per_image: Seconds that one fully busy replica needs per image, until
                ``apply_measurement`` replaces them.
            slots: Ongoing requests that make a replica fully busy.
            permits: Jobs that all ingest actors together have in flight at most.
            now_s: The present time by the monotonic clock.
        """
        self._goals = goals
        self._seconds_per_image = seconds_per_image
        self._slots = slots
        self._permits = permits
        self._started_at_s = now_s
        self._recent: deque[BacklogReading] = deque()

    @property
    def seconds_per_image(self) -> float:
        """Seconds per image of one fully busy replica, as they are used now."""
        return self._seconds_per_image

    def apply_measurement(self, seconds_per_image: float) -> None:
        """Use the seconds per image that the replicas measured. Values without sense are ignored.

        Args:
            seconds_per_image: Mean of the replicas.
        """
        if seconds_per_image > 0 and math.isfinite(seconds_per_image):
            self._seconds_per_image = seconds_per_image

    def decide(
        self, reading: BacklogReading | None, ongoing: float, current: int, now_s: float
    ) -> int:
        """Return the number of replicas that are needed now.

        Args:
            reading: The last reading of the backlog. None before the first one.
            ongoing: Requests that wait at the deployment or are being processed there.
            current: Replicas that run or have been requested.
            now_s: The present time by the monotonic clock.
        """
        age_s = now_s - (self._started_at_s if reading is None else reading.at_s)
        ignored = age_s > self._goals.away_after_s
        backlog = dispatched = 0.0
        if reading is not None and not ignored:
            backlog = float(reading.waiting + reading.in_flight)
            dispatched = min(self._permits, self._recent_in_flight(reading))
        demand = Demand(backlog, ongoing, dispatched)
        needed = replicas_needed(demand, self._goals, self._seconds_per_image, self._slots, current)
        # Without any reading the controller has just started, perhaps during a busy time.
        late = reading is None or age_s > self._goals.late_after_s
        return max(needed, current) if late and not ignored else needed

    def _recent_in_flight(self, reading: BacklogReading) -> int:
        """Return the most messages in flight during the last minute.

        The ongoing requests are a mean over a similar time, so that the present number alone would
        not explain them.
        """
        recent = self._recent
        if not recent or recent[-1] != reading:
            recent.append(reading)
            while recent[0].at_s < reading.at_s - _MEMORY_S:
                recent.popleft()
        return max(each.in_flight for each in recent)
