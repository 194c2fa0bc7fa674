"""Waiting for a cluster to do something, and the reasons to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class DeploymentFailed(Exception):
    """The revision cannot be deployed, or does not do what it should."""


class TookTooLong(DeploymentFailed):
    """What was waited for did not come in time."""


class NotYet(Exception):
    """What is waited for is not there yet."""


class Clock:
    """The time of this machine."""

    def now_s(self) -> float:
        """Return the seconds since some moment."""
        return time.monotonic()

    def sleep(self, duration_s: float) -> None:
        """Let time pass."""
        time.sleep(duration_s)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each step may take, in seconds.

    The way to a new release and back takes less than an hour, for which credentials last.
    """

    ready_s: float = 1200
    """For a RayService to be ready: nodes start, images are pulled, models are loaded."""
    check_s: float = 120
    """For one image over HTTP, and everything else that takes moments."""
    queue_s: float = 300
    """For one image by the queue."""
    poll_s: float = 5
    """Pause between two looks."""


def wait_until(
    what: str,
    patience_s: float,
    poll_s: float,
    clock: Clock,
    attempt: Callable[[], T],
    report: Callable[[str], None],
) -> T:
    """Repeat an attempt until it succeeds, and report how long that took.

    Args:
        what: What is true once it succeeds, as a sentence without its full stop.
        patience_s: Seconds for all attempts together.
        poll_s: Seconds between two attempts.
        clock: Time that passes.
        attempt: Raises `NotYet` until it succeeds. Other exceptions end the waiting.
        report: Called with a line for each new reason and for the end.

    Returns:
        What the attempt returned.

    Raises:
        TookTooLong: It did not succeed in time.
    """
    began_s = clock.now_s()
    reason = ""
    while True:
        try:
            found = attempt()
        except NotYet as error:
            waited_s = clock.now_s() - began_s
            if str(error) != reason:
                reason = str(error)
                report(f"  waiting: {reason}")
            if waited_s + poll_s > patience_s:
                raise TookTooLong(
                    f"after {waited_s:.0f} s it is not true that {what}: {reason}"
                ) from error
            clock.sleep(poll_s)
        else:
            report(f"{what} (after {clock.now_s() - began_s:.0f} s)")
            return found
