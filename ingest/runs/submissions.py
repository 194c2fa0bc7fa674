"""Jobs that clients post over HTTP: onto the queue, and what became of them.

The messages are the same that any producer sends; each is validated in the way of the consumer
before it is sent, so that what is wrong with it is said at once.
"""

from __future__ import annotations

import asyncio
import gzip
import time
import uuid
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from ingest.messages.build import new_run_id
from ingest.messages.parse import parse_message
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import STATUS_RANK
from ingest.runs.manifest import RunManifest, read_manifest, write_manifest
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.sender import batches, send_batch
from serve_app.aws import aws_client
from serve_app.config import AppConfig, LedgerConfig, QueueConfig
from serve_app.contracts.job import Job
from serve_app.contracts.model import requested_models
from serve_app.contracts.submission import Receipt, RunCounts
from serve_app.errors import (
    ForeedgeError,
    InvalidMessage,
    QueueUnavailable,
    SourceNotFound,
    StorageUnavailable,
)
from serve_app.storage import check_allowed, open_store
from serve_app.storage.protocol import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

PARTS_PER_REQUEST = 64
"""Parts of the ledger that one request reads at most: 64,000 results, within about a second."""

_MESSAGE_BYTES = 24 * 1024
"""Maximum size of a posted job in bytes."""

_SEND_ATTEMPTS = 2
"""Number of times that a message is sent at most. The client waits meanwhile, and may post again
what was not accepted."""

_FOLDED_JOBS = 200_000
_RUNS_IN_MEMORY = 16
_FRESH_S = 1.0
_THREADS = 4


class SqsJobs:
    """The configured queue and ledger, for the HTTP endpoint; see ``JobQueue``.

    Made where the application is wired; its connections are opened in the replica that uses it.
    """

    def __init__(self, config: AppConfig) -> None:
        self._config = config
        self._runs: OrderedDict[str, RunTally] = OrderedDict()

    async def submit(self, contents: list[Any]) -> list[Receipt]:
        """See JobQueue."""
        queue = self._config.queue
        if queue is None:
            raise QueueUnavailable(
                "no queue is configured here (queue.url): jobs cannot be posted; /v1/cutout takes "
                "one image at a time"
            )
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, self._submit, contents, queue
        )

    async def counts(self, run_id: str) -> RunCounts:
        """See JobQueue."""
        ledger = self._config.ledger
        if ledger is None:
            raise StorageUnavailable("no ledger is configured here (ledger.bucket)")
        tally = self._runs.pop(run_id, None) or RunTally(self._store, ledger, run_id)
        async with tally.lock:
            await asyncio.get_running_loop().run_in_executor(self._pool, tally.update)
        # Only runs that there are, so that guessed names do not drive others out.
        self._runs[run_id] = tally
        self._runs.move_to_end(run_id)
        while len(self._runs) > _RUNS_IN_MEMORY:
            self._runs.popitem(last=False)
        return tally.counts()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_THREADS, "jobs")

    @cached_property
    def _sqs(self) -> SQSClient:
        client: SQSClient = aws_client("sqs", self._config.aws, connections=_THREADS)
        return client

    @cached_property
    def _store(self) -> ObjectStore:
        return open_store(self._config)

    def _submit(self, contents: list[Any], queue: QueueConfig) -> list[Receipt]:
        """Validate and send; blocks."""
        run_id = new_run_id()
        receipts: list[Receipt | None] = []
        jobs: list[Job] = []
        bodies: list[str] = []
        for content in contents:
            try:
                job, body = self._prepared(content, run_id, queue)
            except ForeedgeError as error:
                receipts.append(_refused(error, content))
            else:
                receipts.append(None)
                jobs.append(job)
                bodies.append(body)
        errors = self._send(queue.url, bodies)
        new = [job for job, error in zip(jobs, errors, strict=True) if _is_new(job, error, run_id)]
        if new:
            self._write_manifest(run_id, new, queue)
        sent = iter(zip(jobs, errors, strict=True))
        return [receipt or _receipt(*next(sent)) for receipt in receipts]

    def _prepared(self, content: Any, run_id: str, queue: QueueConfig) -> tuple[Job, str]:
        """Return a job with its ids, and its message."""
        if not isinstance(content, dict) or not isinstance(content.get("source"), dict):
            raise InvalidMessage("a job is an object with a 'source'")
        given = {name: value for name, value in content.items() if value is not None}
        named = {"job_id": uuid.uuid4().hex, "run_id": run_id, **given}
        body = orjson.dumps(named)
        if len(body) > _MESSAGE_BYTES:
            raise InvalidMessage(f"the job has more than {_MESSAGE_BYTES:,} bytes")
        [job] = parse_message(body.decode(), queue)
        check_allowed(job.source.bucket, self._config.storage.allowed_buckets)
        check_allowed(job.output.bucket, self._config.storage.allowed_buckets)
        requested_models(job.recipe, self._config.models)
        return job, body.decode()

    def _send(self, url: str, bodies: Sequence[str]) -> list[QueueUnavailable | None]:
        """Send messages; return for each why it was not sent, or None if it was. Blocks."""
        queue = QueueClient(self._sqs, url)
        errors: list[QueueUnavailable | None] = []
        for batch in batches(bodies):
            errors += send_batch(queue, batch, attempts=_SEND_ATTEMPTS)
        return errors

    def _write_manifest(self, run_id: str, jobs: list[Job], queue: QueueConfig) -> None:
        """Store what was asked for, where it is one thing: the jobs of a run share a recipe."""
        outputs = {job.output for job in jobs}
        recipes = {job.recipe for job in jobs}
        if self._config.ledger is None or len(outputs) > 1 or len(recipes) > 1:
            return
        manifest = RunManifest(
            run_id=run_id,
            created_at=datetime.now(UTC),
            description="POST /v1/jobs",
            output=outputs.pop(),
            recipe=recipes.pop(),
            jobs=len(jobs),
            queue_url=queue.url,
        )
        write_manifest(RunFolder(self._store, self._config.ledger, run_id), manifest)


class RunTally:
    """Counts the results of one run; each update reads the parts of its ledger that are new.

    Of a job that has several records the best counts, as in ``ledger.fold``, for as long as there
    are fewer than 200,000 jobs. Beyond, a record that the ledger has twice counts twice: what it
    takes to know better would not be bounded.
    """

    def __init__(self, store: ObjectStore, ledger: LedgerConfig, run_id: str) -> None:
        self.lock = asyncio.Lock()
        self._store = store
        self._ledger = ledger
        self._run_id = run_id
        self._manifest: RunManifest | None = None
        self._seen: set[str] = set()
        self._jobs: dict[str, tuple[str, str | None]] = {}
        self._counts: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._complete = False
        self._updated_at: float | None = None

    def update(self) -> None:
        """Read some of the parts that are new; blocks.

        Raises:
            SourceNotFound: There is no such run.
            StorageUnavailable: The ledger does not answer.
        """
        fresh = self._updated_at is not None and time.monotonic() - self._updated_at < _FRESH_S
        if fresh and self._complete:
            return
        if self._manifest is None:
            self._manifest = self._read_manifest()
        prefix = f"{self._ledger.prefix}runs/{self._run_id}/results/"
        new = [
            item.key
            for item in self._store.list(self._ledger.bucket, prefix)
            if item.key.endswith(".jsonl.gz") and item.key not in self._seen
        ]
        if self._manifest is None and not new and not self._seen:
            raise SourceNotFound(f"no run {self._run_id!r} in this ledger")
        for key in new[:PARTS_PER_REQUEST]:
            data = self._store.get(self._ledger.bucket, key)
            for line in gzip.decompress(data).splitlines():
                self._add(orjson.loads(line))
            self._seen.add(key)
        self._complete = len(new) <= PARTS_PER_REQUEST
        self._updated_at = time.monotonic()

    def counts(self) -> RunCounts:
        """Return the counts of the last update."""
        jobs = None if self._manifest is None else self._manifest.jobs
        ended = self._counts.total()
        return RunCounts(
            run_id=self._run_id,
            jobs=jobs,
            counts={status: self._counts[status] for status in STATUS_RANK},
            remaining=None if jobs is None else max(0, jobs - ended),
            codes={code: count for code, count in self._codes.most_common() if count},
            complete=self._complete,
        )

    def _read_manifest(self) -> RunManifest | None:
        try:
            return read_manifest(RunFolder(self._store, self._ledger, self._run_id))
        except SourceNotFound:
            return None

    def _add(self, record: dict[str, Any]) -> None:
        job_id, status, code = record["job_id"], record["status"], record.get("code")
        known = self._jobs.get(job_id)
        if known is not None:
            if STATUS_RANK[status] < STATUS_RANK[known[0]]:
                return
            self._count(*known, -1)
        if known is not None or len(self._jobs) < _FOLDED_JOBS:
            self._jobs[job_id] = (status, code)
        self._count(status, code, 1)

    def _count(self, status: str, code: str | None, change: int) -> None:
        self._counts[status] += change
        if status == "failed":
            self._codes[code or "unknown"] += change


def _is_new(job: Job, error: QueueUnavailable | None, run_id: str) -> bool:
    return error is None and job.run_id == run_id


def _receipt(job: Job, error: QueueUnavailable | None) -> Receipt:
    if error is None:
        return Receipt(job_id=job.job_id, run_id=job.run_id, status="queued")
    return _refused(error, {"job_id": job.job_id, "run_id": job.run_id})


def _refused(error: ForeedgeError, content: Any) -> Receipt:
    fields = content if isinstance(content, dict) else {}
    ids = {name: fields[name] for name in ("job_id", "run_id") if isinstance(fields.get(name), str)}
    return Receipt(
        status="refused", code=error.code, detail=error.message, retry=error.retry, **ids
    )
