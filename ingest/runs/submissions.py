"""Jobs that clients post over HTTP: put them on the queue, and count their results.

The messages are those that any producer may send. Each is validated as the consumer validates it
before it is sent, so that a client learns at once what is wrong with its job.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ingest.messages.build import message_text, new_run_id
from ingest.messages.parse import parse_native_message
from ingest.runs.folder import RunFolder
from ingest.runs.manifest import RunManifest, write_manifest
from ingest.runs.polled_runs import PolledRuns
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.sender import batches, send_batch
from serve_app.aws import aws_client
from serve_app.config import AppConfig, QueueConfig
from serve_app.contracts.job import Job
from serve_app.contracts.model import requested_models
from serve_app.contracts.submission import Receipt, RunCounts
from serve_app.errors import (
    ForeedgeError,
    InvalidMessage,
    QueueUnavailable,
    StorageUnavailable,
)
from serve_app.storage import check_allowed, open_store
from serve_app.storage.protocol import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_logger = logging.getLogger(__name__)

_MESSAGE_BYTES = 24 * 1024
"""Maximum size of a posted job in bytes."""

_SEND_ATTEMPTS = 2
"""Number of times that a message is sent at most. The client waits meanwhile, and may post the
refused jobs again."""

_THREADS = 4


class SqsJobs:
    """The configured queue and ledger, for the HTTP endpoint; see ``JobQueue``.

    It is created where the application is wired, and opens its connections in the replica that
    uses it.
    """

    def __init__(self, config: AppConfig) -> None:
        self._config = config
        self._runs: PolledRuns | None = None

    async def submit(self, contents: list[Any]) -> list[Receipt]:
        """See JobQueue."""
        queue = self._config.queue
        if queue is None:
            raise QueueUnavailable(
                "No queue is configured (queue.url), so jobs cannot be posted. Use /v1/cutout to "
                "process one image at a time"
            )
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, self._submit, contents, queue
        )

    async def counts(self, run_id: str) -> RunCounts:
        """See JobQueue."""
        ledger = self._config.ledger
        if ledger is None:
            raise StorageUnavailable(
                "No ledger is configured (ledger.bucket), so runs cannot be counted"
            )
        if self._runs is None:
            self._runs = PolledRuns(self._store, ledger, self._pool)
        return await self._runs.counts(run_id)

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
        """Send the valid jobs, and return a receipt for each job. Blocks."""
        run_id = new_run_id()
        receipts: list[Receipt | None] = []
        jobs: list[Job] = []
        bodies: list[str] = []
        for content in contents:
            try:
                job, body = self._prepare(content, run_id, queue)
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

    def _prepare(self, content: Any, run_id: str, queue: QueueConfig) -> tuple[Job, str]:
        """Return a job with its ids, and the body of its message.

        Raises:
            ForeedgeError: The job is invalid, or not allowed by the settings.
        """
        if not isinstance(content, dict) or not isinstance(content.get("source"), dict):
            raise InvalidMessage("a job must be an object with a 'source' object")
        given = {name: value for name, value in content.items() if value is not None}
        named = {"job_id": uuid.uuid4().hex, "run_id": run_id, **given}
        body = message_text(named)
        size = len(body.encode())
        if size > _MESSAGE_BYTES:
            raise InvalidMessage(f"the job has {size:,} bytes; the limit is {_MESSAGE_BYTES:,}")
        job = parse_native_message(body, queue)
        check_allowed(job.source.bucket, self._config.storage.allowed_buckets)
        check_allowed(job.output.bucket, self._config.storage.allowed_buckets)
        requested_models(job.recipe, self._config.models, self._config.served_models)
        return job, body

    def _send(self, url: str, bodies: Sequence[str]) -> list[QueueUnavailable | None]:
        """Send messages, and return for each why it was not sent, or None if it was. Blocks."""
        queue = QueueClient(self._sqs, url)
        errors: list[QueueUnavailable | None] = []
        for batch in batches(bodies):
            errors += send_batch(queue, batch, attempts=_SEND_ATTEMPTS)
        return errors

    def _write_manifest(self, run_id: str, jobs: list[Job], queue: QueueConfig) -> None:
        """Store the manifest of a new run, if its jobs share one output and one recipe.

        A manifest has room for one of each, so other runs have none, and their number of jobs is
        unknown. So it is if the ledger refuses the manifest: the jobs are on the queue, and a
        client that got an error would post them again.
        """
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
        try:
            write_manifest(RunFolder(self._store, self._config.ledger, run_id), manifest)
        except ForeedgeError as error:
            text = "run %s has no manifest, so that its number of jobs is unknown: %s: %s"
            _logger.warning(text, run_id, error.code, error.message)


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
