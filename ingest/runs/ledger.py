"""The ledger: how each job of a run ended, written in parts.

A job may have several records: a consumer that dies after recording a job and before deleting its
message leaves a duplicate, and a redriven job is recorded again. ``records`` folds them to one.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from ingest.runs.folder import RunFolder
from ingest.runs.live import recorded_run_id
from ingest.runs.parts import part_name
from ingest.sqs.backoff import RETRY_MAX_S, backoff_s
from serve_app.config import LedgerConfig
from serve_app.contracts.outcome import Outcome
from serve_app.errors import ForeedgeError, InternalError, TransientError
from serve_app.storage.protocol import ObjectStore

_logger = logging.getLogger(__name__)


class OutcomeSink(Protocol):
    """What a consumer writes outcomes to: a Ledger, or a stand-in for it in tests."""

    async def record(self, outcome: Outcome) -> None:
        """Return when the outcome is stored."""
        ...

    async def close(self) -> None:
        """Store the outcomes of unfinished parts now."""
        ...


def read_outcomes(folder: RunFolder) -> Iterator[Outcome]:
    """Yield every record of a run, part by part in order of time. Blocks.

    A job may have several records. They are not folded, and a few parts at a time are in memory,
    so that a run of any size can be read. The names of its parts are in memory.
    """
    known: set[str] = set()
    # A part that is gone was compacted after it was listed. Another listing has its records.
    while keys := [key for key in folder.part_keys("results") if part_name(key) not in known]:
        for key, parts in folder.read_parts(keys):
            for name, lines in parts or ():
                if name not in known:
                    yield from _outcomes(folder, key, lines)
                    known.add(name)
            known.update([part_name(key)] if parts is not None else [])


def _outcomes(folder: RunFolder, key: str, lines: list[bytes]) -> Iterator[Outcome]:
    for line in lines:
        try:
            yield Outcome.model_validate(orjson.loads(line))
        except ValueError as error:
            raise folder.damaged_part(key, error) from error


@dataclass(slots=True)
class _Part:
    """Records that will be stored together."""

    ended: asyncio.Event
    """Event that is set when the part is stored or refused."""
    timer: asyncio.TimerHandle
    """Timer that closes the part if it does not fill up in time."""
    opened_at_s: float
    """Time of the first record, by the clock of the event loop."""
    lines: list[bytes] = field(default_factory=list)
    refusal: ForeedgeError | None = None
    """Reason why the part was refused, or None."""

    def refuse(self, error: ForeedgeError) -> None:
        self.refusal = error
        self.ended.set()


class Ledger:
    """A writer of outcomes to the ledger. Belongs to one event loop."""

    def __init__(
        self,
        store: ObjectStore,
        config: LedgerConfig,
        *,
        consumer: str | None = None,
        retry_base_s: float = 0.5,
        on_stored: Callable[[int, float], None] = lambda records, seconds: None,
    ) -> None:
        """Create a writer.

        Args:
            store: Object store of the ledger.
            config: Bucket and prefix of the ledger, and the size of a part.
            consumer: Name that no other writer of these runs has; random by default. It becomes
                part of each key.
            retry_base_s: Longest pause, in seconds, before a failed write is first repeated. It
                doubles with each attempt, up to 30 s.
            on_stored: Called with the number of records of each part that is stored, and the
                seconds since its first record.
        """
        self._store = store
        self._config = config
        self._consumer = consumer or uuid.uuid4().hex[:12]
        self._retry_base_s = retry_base_s
        self._on_stored = on_stored
        self._sequence = itertools.count()
        self._open: dict[str, _Part] = {}
        self._writes: set[asyncio.Task[None]] = set()
        self.trouble: str | None = None
        """Reason why the last write failed, or None if it succeeded."""

    async def record(self, outcome: Outcome) -> None:
        """Return when the part that holds ``outcome`` is stored.

        While the store is unavailable, the write is repeated indefinitely.

        Raises:
            ForeedgeError: The store refuses the part for a reason that waiting does not fix, e.g.
                because the write is denied.
        """
        run_id = recorded_run_id(outcome.run_id, outcome.finished_at)
        part = self._open.get(run_id) or self._open_part(run_id)
        part.lines.append(outcome.model_dump_json(exclude_none=True).encode())
        if len(part.lines) >= self._config.part_records:
            self._close_part(run_id)
        await part.ended.wait()
        if part.refusal is not None:
            raise part.refusal

    async def close(self) -> None:
        """Store every open part, and return when each is stored or refused."""
        for run_id in list(self._open):
            self._close_part(run_id)
        if self._writes:
            await asyncio.wait(self._writes)

    def _open_part(self, run_id: str) -> _Part:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._config.part_interval_s, self._close_part, run_id)
        part = self._open[run_id] = _Part(asyncio.Event(), timer, loop.time())
        return part

    def _close_part(self, run_id: str) -> None:
        part = self._open.pop(run_id)
        part.timer.cancel()
        write = asyncio.create_task(self._write_until_stored(run_id, part))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def _write_until_stored(self, run_id: str, part: _Part) -> None:
        folder = RunFolder(self._store, self._config, run_id)
        writer = f"{self._consumer}-{next(self._sequence):06d}"
        key = folder.new_part_key("results", writer)
        for attempt in itertools.count(1):
            try:
                await asyncio.to_thread(folder.write_part, key, part.lines)
            except TransientError as error:
                self.trouble = f"{error.code}: {error.message}"
                _logger.warning(
                    "ledger: %s; %d records wait for it", error.message, len(part.lines)
                )
                await asyncio.sleep(backoff_s(self._retry_base_s, attempt, RETRY_MAX_S))
            except ForeedgeError as error:
                self.trouble = f"{error.code}: {error.message}"
                _logger.error("ledger: %s; %d records were refused", error.message, len(part.lines))
                part.refuse(error)
                return
            except Exception as error:
                _logger.exception("ledger: %s could not be stored", key)
                part.refuse(InternalError(f"{key} could not be stored: {error}"))
                return
            else:
                self.trouble = None
                part.ended.set()
                waited_s = asyncio.get_running_loop().time() - part.opened_at_s
                self._on_stored(len(part.lines), waited_s)
                return
