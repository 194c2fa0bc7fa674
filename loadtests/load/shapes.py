"""How many users load a system over time. Without locust, which patches whatever imports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["constant", "ramp", "spike", "soak"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SATURATED_BELOW = 1.05
_SPIKE_SHARE = 0.1


@dataclass(slots=True)
class Shape:
    """The number of users over the time of one load.

    ``constant`` and ``soak`` hold the peak; a soak is judged by what the replicas' memory does,
    and lasts for hours. ``ramp`` doubles the users from one to the peak and ends where a step
    brings less than 5 % more images/s: the rate before is what the system can do. ``spike`` holds
    a tenth, with the peak in the middle third.
    """

    kind: Kind
    peak: int
    duration_s: float
    _step: int = 0
    _before: int = 0
    _rate: float = 0.0

    def users(self, elapsed_s: float, answered: int) -> int | None:
        """Return how many users there are; None ends the load.

        Args:
            elapsed_s: Since it began.
            answered: Requests so far.
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
        """Return whether the step that has ended answered more than the one before it."""
        rate, before = (answered - self._before) / step_s, self._rate
        self._before, self._rate = answered, rate
        return rate >= before * _SATURATED_BELOW
