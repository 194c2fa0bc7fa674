"""The sweep every five minutes, in one of the consumers that share a database.

All consumers wake up at the same times, the multiples of five minutes. The first one takes a lock
of the database, and the others leave the sweep to it. It holds the lock for some seconds more, for
those whose clocks are late. Two sweeps at once, as with clocks that differ by more, do no harm.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ingest.catalog.database import Database
from ingest.catalog.sweep import Swept, sweep
from ingest.catalog.try_again import TryAgain
from ingest.catalog.unsent import Wanted
from ingest.sqs.queue_client import QueueClient
from serve_app.errors import ForeedgeError

_logger = logging.getLogger(__name__)

EVERY_S = 300
"""Time, in seconds, from one sweep to the next."""
_HOLD_S = 5.0
_LOCK = 0x466F7265
"""Number of the lock: the first letters of the application's name."""


class _Stopped(Exception):
    """The consumer stops, and another one sweeps the other rows."""


class SweepSchedule:
    """The sweeps of one consumer. Belongs to one event loop."""

    def __init__(
        self,
        database: Database,
        queue: QueueClient,
        wanted: Wanted,
        *,
        clock: Callable[[], float] = time.time,
        in_thread: Callable[..., Awaitable[Any]] = asyncio.to_thread,
        hold_s: float = _HOLD_S,
    ) -> None:
        """Sweep nothing yet; see ``run``.

        Args:
            database: Database of the application, with connections of its own.
            queue: Queue to send to, with a client that fails within seconds.
            wanted: Choice of the jobs.
            clock: Function that returns the time in seconds, which all consumers share.
            in_thread: Function that awaits a call that blocks.
            hold_s: Time, in seconds, for which the lock is held after a sweep.
        """
        self._database = database
        self._queue = queue
        self._wanted = wanted
        self._clock = clock
        self._in_thread = in_thread
        self._hold_s = hold_s
        self._stopping = threading.Event()

    async def run(self) -> None:
        """Sweep every five minutes, until cancelled."""
        try:
            while True:
                await asyncio.sleep(EVERY_S - self._clock() % EVERY_S)
                try:
                    await self._in_thread(self.sweep_if_first)
                except Exception:
                    # What no test has shown must not end all later sweeps without a word.
                    _logger.exception("catalog: the sweep failed; the next one is in %d s", EVERY_S)
        finally:
            self._stopping.set()

    def sweep_if_first(self) -> Swept | None:
        """Sweep, unless another consumer does, and return what was done. Blocks."""
        try:
            with self._database.locked(_LOCK) as keep:
                if keep is None:
                    return None
                swept = self._sweep(keep)
                self._stopping.wait(self._hold_s)
        except _Stopped:
            return None
        except (ForeedgeError, TryAgain) as error:
            _logger.warning("catalog: the sweep could not begin or end: %s", error)
            return None
        finally:
            # It has no use for connections until the next time.
            self._database.close()
        return swept

    def _sweep(self, keep: Callable[[], object]) -> Swept:
        kept_at = time.monotonic()

        def on_row(_: str) -> None:
            nonlocal kept_at
            if self._stopping.is_set():
                raise _Stopped
            if time.monotonic() > kept_at + 1:
                keep()
                kept_at = time.monotonic()

        swept = sweep(self._database, self._queue, self._wanted, on_row=on_row)
        if swept.error is not None:
            _logger.warning("catalog: the sweep ended early: %s", swept.error.message)
        if swept.ends:
            _logger.info("catalog: swept %s", dict(swept.ends))
        return swept
