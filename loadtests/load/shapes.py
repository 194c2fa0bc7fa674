"""Number of users over time.

This module does not import locust, which patches sockets and threads when it is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

LoadKind = Literal["constant", "ramp", "spike", "soak"]
LOAD_KINDS: tuple[LoadKind, ...] = get_args(LoadKind)

_SATURATED_BELOW = 1.05
_SPIKE_SHARE = 0.1


@dataclass(slots=True)
class UserCurve:
    """The number of users over the time of one load.

    ``constant`` and ``soak`` hold the peak. A soak lasts for hours, and shows whether the replicas'
    memory grows. ``ramp`` doubles the users from one to the peak. It ends when a step brings less
    than 5 % more images/s, because the rate before that step is the most that the system can do.
    ``spike`` holds a tenth of the peak, and the peak in the middle third.
    """

    kind: LoadKind
    peak: int
    duration_s: float
    _step: int = 0
    _answered_before: int = 0
    _rate_before: float = 0.0

    def users(self, elapsed_s: float, answered: int) -> int | None:
        """Return the number of users, or None to end the load.

        Args:
            elapsed_s: Seconds since the load began.
            answered: Number of requests answered so far.
        """
        if elapsed_s >= self.duration_s:
            return None
        if self.kind == "spike":
            calm = max(1, round(self.peak * _SPIKE_SHARE))
            return self.peak if 1 / 3 <= elapsed_s / self.duration_s < 2 / 3 else calm
        if self.kind == "ramp":
            step_s = self.duration_s / ((self.peak - 1).bit_length() + 1)
            step = int(elapsed_s / step_s)
            if step > self._step and not self._grew(answered, step_s):
                return None
            self._step = step
            return min(self.peak, 1 << step)
        return self.peak

    def _grew(self, answered: int, step_s: float) -> bool:
        """Return whether the last step answered more requests than the one before it."""
        rate, rate_before = (answered - self._answered_before) / step_s, self._rate_before
        self._answered_before, self._rate_before = answered, rate
        return rate >= rate_before * _SATURATED_BELOW
