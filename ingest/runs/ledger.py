"""The ledger: what was asked for in a run, and how each of its jobs ended.

A run is a folder in the object store::

    {prefix}runs/{run_id}/run.json                                      what was asked for
    {prefix}runs/{run_id}/jobs/{number}.jsonl.gz                        its jobs (``jobs``)
    {prefix}runs/{run_id}/sent.json                                     those on the queue
    {prefix}runs/{run_id}/results/{time}-{consumer}-{seq}.jsonl.gz      how jobs ended
    {prefix}runs/{run_id}/redriven/{time}-{chance}.jsonl.gz             failures tried again

A part is written once and never changed. A job may have several records, since a consumer that
dies between the record and the deletion of the message leaves both; ``fold`` makes them one.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import logging
import random
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import orjson

from ingest.runs.folder import run_folder
from serve_app.config import LedgerConfig
from serve_app.contracts.outcome import Outcome
from serve_app.errors import (
    ForeedgeError,
    InternalError,
    StorageUnavailable,
    TransientError,
)
from serve_app.storage.protocol import ObjectStore

_logger = logging.getLogger(__name__)

_RETRY_MAX_S = 30.0
_PARTS_READ_AHEAD = 16
STATUS_RANK = {"done": 2, "skipped_existing": 1, "failed": 0}
"""Of two records of a job, the one whose status ranks higher counts."""


class OutcomeSink(Protocol):
    """Where a consumer puts outcomes; a Ledger, or a double of it in tests."""

    async def record(self, outcome: Outcome) -> None:
        """Return when the outcome is stored."""
        ...

    async def close(self) -> None:
        """Store what waits for a part to fill, now."""
        ...


def read_outcomes(store: ObjectStore, ledger: LedgerConfig, run_id: str) -> Iterator[Outcome]:
    """Yield every record of a run, part after part in the order of time; blocks.

    Duplicates are not folded, and the parts are not all held at once, so that a run of any size
    can be read.
    """

    def read(key: str) -> bytes:
        return gzip.decompress(store.get(ledger.bucket, key))

    listing = store.list(ledger.bucket, f"{run_folder(ledger, run_id)}results/")
    keys = (item.key for item in listing if item.key.endswith(".jsonl.gz"))
    with ThreadPoolExecutor(_PARTS_READ_AHEAD, "ledger-read") as pool:
        while some := list(itertools.islice(keys, _PARTS_READ_AHEAD)):
            for data in pool.map(read, some):
                for line in data.splitlines():
                    yield Outcome.model_validate(orjson.loads(line))


def fold(outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """Return the one record that counts for each ``job_id``.

    Success beats failure; ``done`` beats ``skipped_existing``, which says less and is what a
    duplicate delivery of a finished job records; otherwise the later record counts.
    """
    folded: dict[str, Outcome] = {}
    for outcome in outcomes:
        known = folded.get(outcome.job_id)
        if known is None or _weight(outcome) >= _weight(known):
            folded[outcome.job_id] = outcome
    return folded


def _weight(outcome: Outcome) -> tuple[int, datetime]:
    return STATUS_RANK[outcome.status], outcome.finished_at


@dataclass(slots=True)
class _Part:
    """Records that will be stored together, and the news of it."""

    stored: asyncio.Future[None]
    timer: asyncio.TimerHandle
    lines: list[bytes] = field(default_factory=list)


class Ledger:
    """Writes outcomes in parts. Belongs to one event loop."""

    def __init__(
        self,
        store: ObjectStore,
        config: LedgerConfig,
        *,
        consumer: str | None = None,
        retry_base_s: float = 0.5,
    ) -> None:
        """Make a writer.

        Args:
            store: Where parts go.
            config: Bucket, prefix, and size of a part.
            consumer: Part of each name, unique among the writers of a run; random by default.
            retry_base_s: First back-off after a failed store; it doubles up to 30 s.
        """
        self._store = store
        self._config = config
        self._consumer = consumer or uuid.uuid4().hex[:12]
        self._retry_base_s = retry_base_s
        self._sequence = itertools.count()
        self._open: dict[str, _Part] = {}
        self._storing: set[asyncio.Task[None]] = set()

    async def record(self, outcome: Outcome) -> None:
        """Return when the part that holds ``outcome`` is stored.

        A store that does not answer is tried again for as long as it takes.

        Raises:
            ForeedgeError: The store refuses the part for a reason that waiting does not mend,
                such as a denied write.
        """
        part = self._open.get(outcome.run_id) or self._begin(outcome.run_id)
        part.lines.append(orjson.dumps(outcome.model_dump(mode="json", exclude_none=True)))
        if len(part.lines) >= self._config.part_records:
            self._seal(outcome.run_id)
        # Others wait for the same part: a waiter that is cancelled must not cancel theirs.
        await asyncio.shield(part.stored)

    async def close(self) -> None:
        """Store every part that is still open, and return when all of them are settled."""
        for run_id in list(self._open):
            self._seal(run_id)
        if self._storing:
            await asyncio.wait(self._storing)

    def _begin(self, run_id: str) -> _Part:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._config.part_interval_s, self._seal, run_id)
        part = self._open[run_id] = _Part(loop.create_future(), timer)
        return part

    def _seal(self, run_id: str) -> None:
        part = self._open.pop(run_id)
        part.timer.cancel()
        task = asyncio.create_task(self._keep_storing(run_id, part))
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)

    async def _keep_storing(self, run_id: str, part: _Part) -> None:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        name = f"{now}-{self._consumer}-{next(self._sequence):06d}.jsonl.gz"
        key = f"{run_folder(self._config, run_id)}results/{name}"
        for attempt in itertools.count():
            try:
                await asyncio.to_thread(self._put, key, part.lines)
            except TransientError as error:
                limit_s = min(_RETRY_MAX_S, self._retry_base_s * 2 ** min(attempt, 16))
                _logger.warning("ledger: %s; %d records wait", error.message, len(part.lines))
                await asyncio.sleep(limit_s * random.uniform(0.5, 1))
            except ForeedgeError as error:
                _logger.error("ledger: %s; %d records refused", error.message, len(part.lines))
                part.stored.set_exception(error)
                return
            except Exception as error:
                _logger.exception("ledger: %s could not be stored", key)
                part.stored.set_exception(InternalError(f"{key} could not be stored: {error}"))
                return
            else:
                part.stored.set_result(None)
                return

    def _put(self, key: str, lines: list[bytes]) -> None:
        """Store one part; blocks."""
        bucket = self._config.bucket
        data = gzip.compress(b"\n".join(lines) + b"\n", compresslevel=6, mtime=0)
        # The name is ours alone: if it exists, an earlier attempt succeeded and its answer was
        # lost. S3 also refuses where two writes meet, and then neither may have been kept.
        if not self._store.put_if_absent(bucket, key, data, "application/gzip"):
            info = self._store.head(bucket, key)
            if info is None or info.size != len(data):
                raise StorageUnavailable(f"s3://{bucket}/{key} was refused and is not stored")
