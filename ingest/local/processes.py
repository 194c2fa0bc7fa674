"""Scheduling and termination of local processes."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_PR_SET_PDEATHSIG = 1


@contextmanager
def without_preemption() -> Iterator[None]:
    """Make the processes started in this context run as batch processes (see sched(7)).

    Ray's dozen processes wake up over 600 times a second with nothing to do, and each time the
    kernel would take a core from the processing of an image. A batch process waits a few
    milliseconds longer instead if no core is free.
    """
    # A policy that somebody chose for this process stays.
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    # A sandbox may not support the policy, which is only an optimization.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, so that everything is stopped as after Ctrl-C."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for_interrupt(sleep: Callable[[float], None] = time.sleep) -> None:
    """Return after Ctrl-C, or after SIGTERM within ``terminate_as_interrupt``."""
    with suppress(KeyboardInterrupt):
        while True:
            sleep(3600)


def die_with_parent() -> None:
    """Make Linux send SIGTERM to this process when its parent ends, even if that was killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
