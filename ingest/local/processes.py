"""What local processes need of the operating system: when they run, and when they end."""

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
    """Let the processes that are started in this context wait for a core until it changes hands.

    Ray's dozen processes wake over 600 times a second with nothing to do, and each time the kernel
    would take a core from an image for them. As batch processes (sched(7)) they get it a few
    milliseconds later, where no core is free.
    """
    # Where somebody has chosen a policy for this process, that one stays.
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    # A sandbox need not know the policy; everything works without.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the process in the way of Ctrl-C, so that everything is stopped."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_for_interrupt(sleep: Callable[[float], None] = time.sleep) -> None:
    """Return when Ctrl-C is pressed, or the process is asked to end."""
    with suppress(KeyboardInterrupt):
        while True:
            sleep(3600)


def die_with_parent() -> None:
    """End with SIGTERM when the parent does (Linux): not even a kill of it leaves this behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
