"""Cancelled runs: their jobs end as failures instead of being processed.

The mark of a cancelled run is an object in its folder (``ingest.runs.cancellation``). A consumer
looks for it when a job of a run begins, and then at most every ten seconds for each run. So every
consumer knows of a cancellation within 30 s.

If the mark cannot be looked up, e.g. because the role may not read the ledger, jobs are processed:
nobody asked to cancel most runs.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

from ingest.runs.cancellation import is_cancelled
from ingest.runs.folder import RunFolder
from ingest.runs.live import is_live
from serve_app.config import LedgerConfig
from serve_app.contracts.job import AnyJob
from serve_app.contracts.outcome import Outcome
from serve_app.errors import ForeedgeError, RunCancelled
from serve_app.storage.protocol import ObjectStore

_logger = logging.getLogger(__name__)

_FRESH_S = 10.0
_LOOK_S = 5.0
"""Time that a job waits for a look at the mark. A store that hangs must not hold the jobs."""
_MOST_RUNS = 1_000


@dataclass(slots=True)
class _Run:
    """What is known about a run."""

    cancelled: bool = False
    looked_at: float = -math.inf
    look: asyncio.Task[None] | None = None
    """Look that is under way."""


class CancelledRuns:
    """Knows which runs are cancelled. Belongs to one event loop."""

    def __init__(
        self, look_up: Callable[[str], Awaitable[bool]], clock: Callable[[], float]
    ) -> None:
        """Begin without knowing any run.

        Args:
            look_up: Function that looks up whether a run is cancelled. Raises ForeedgeError.
            clock: Function that returns seconds and never goes back.
        """
        self._look_up = look_up
        self._clock = clock
        self._runs: dict[str, _Run] = {}
        self._failing = False

    @classmethod
    def in_ledger(cls, store: ObjectStore, ledger: LedgerConfig) -> Self:
        """Return the cancelled runs of a ledger."""

        async def look_up(run_id: str) -> bool:
            return await asyncio.to_thread(is_cancelled, RunFolder(store, ledger, run_id))

        return cls(look_up, time.monotonic)

    def guard(
        self, process: Callable[[Any], Awaitable[Outcome]]
    ) -> Callable[[Any], Awaitable[Outcome]]:
        """Return a function that processes a job unless its run is cancelled."""

        async def process_unless_cancelled(job: AnyJob) -> Outcome:
            if not is_live(job.run_id) and await self._cancelled(job.run_id):
                raise RunCancelled(
                    f"run {job.run_id} is cancelled. To resume it, send it again with the same "
                    "run id, or redrive its failures"
                )
            return await process(job)

        return process_unless_cancelled

    async def _cancelled(self, run_id: str) -> bool:
        run = self._runs.pop(run_id, None) or _Run()
        # The run that was not asked about for the longest time comes first.
        self._runs[run_id] = run
        while len(self._runs) > _MOST_RUNS:
            del self._runs[next(iter(self._runs))]
        if self._clock() - run.looked_at >= _FRESH_S:
            if run.look is None:
                run.look = asyncio.create_task(self._look(run_id, run))
            await asyncio.wait({run.look}, timeout=_LOOK_S)
        return run.cancelled

    async def _look(self, run_id: str, run: _Run) -> None:
        try:
            run.cancelled = await self._look_up(run_id)
            self._failing = False
        except ForeedgeError as error:
            if not self._failing:
                _logger.warning(
                    "cancellations cannot be looked up, so no run is cancelled: %s: %s",
                    error.code,
                    error.message,
                )
            self._failing = True
        finally:
            run.looked_at = self._clock()
            run.look = None
