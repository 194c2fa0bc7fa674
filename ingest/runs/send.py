"""Puts a run on the queue: one message for each photograph.

The run's jobs are listed in the ledger first, part by part (``jobs``), and sent from there: what
reads a source may be ahead of what sends, no list of millions is in memory, and the number of
jobs is known as soon as the source is read. Sending stops and goes on at any point: what is on the
queue is known by its place in the list.

The id of a job is a function of the run and the object: one that was sent twice, by a second
attempt after a broken connection for example, is the same job, and a report counts it once.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from pydantic import ValidationError

from ingest.messages.build import INVALID_RUN, message_body
from ingest.runs.job_list import PART_JOBS, JobList, Sent
from ingest.runs.job_list_writer import JobListWriter
from ingest.runs.manifest import RunManifest, read_manifest, write_manifest
from ingest.sources.base import Entry, ImageSource, ListedImages
from ingest.sources.distinct import Distinct
from ingest.sqs.errors import map_sqs_errors
from ingest.sqs.queue import check_url
from ingest.sqs.sender import send_messages
from serve_app.config import LedgerConfig
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.job import Job, Output, Source
from serve_app.contracts.recipe import parse_recipe
from serve_app.errors import ForeedgeError, InvalidConfig, InvalidRecipe, SourceNotFound
from serve_app.storage.protocol import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_JOB_ID_HEX_DIGITS = 32
_TAKEN = ("live", INVALID_RUN)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run that is ready to be sent."""

    run_id: str
    description: str
    source: ImageSource
    output: Output
    recipe: str | dict[str, Any]
    """As the messages carry it: a preset's name or an object."""

    def entries(self, after: Entry | None = None, known: int = 0) -> Iterator[Entry]:
        """Yield the photographs, each once and with its job's id; blocks.

        Args:
            after: The last one that is known already; None where none is.
            known: How many are.
        """
        source = self.source
        if source.ordered:
            for entry in source.entries(after.key if after else None):
                yield _with_job_id(self.run_id, entry)
            return
        yield from itertools.islice(self._distinct(), known, None)

    def _distinct(self) -> Iterator[Entry]:
        job_ids = Distinct()
        try:
            for entry in self.source.entries():
                job = _with_job_id(self.run_id, entry)
                if job_ids.add(job.job_id):
                    yield job
        finally:
            job_ids.close()


def recipe_argument(text: str) -> str | dict[str, Any]:
    """Return a recipe as messages carry it, from a preset's name or a JSON object.

    Raises:
        InvalidRecipe: It is neither, or has an unknown field or value.
    """
    value: Any = text
    if text.lstrip().startswith("{"):
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise InvalidRecipe(f"recipe is not JSON: {error}") from error
    parse_recipe(value)
    recipe: str | dict[str, Any] = value
    return recipe


def plan_run(
    source: ImageSource | Iterable[Entry],
    *,
    run_id: str,
    description: str,
    output: Output,
    recipe: str | dict[str, Any],
) -> RunPlan:
    """Return the run of some photographs; reads no more than the first one.

    Raises:
        InvalidConfig: There are none, or the run's name or a key is not allowed.
    """
    if run_id in _TAKEN:
        raise InvalidConfig(f"run_id: {run_id!r} is the run of other producers' messages")
    if not isinstance(source, ImageSource):
        source = ListedImages(source)
    made = RunPlan(run_id, description, source, output, recipe)
    first = next(made.entries(), None)
    if first is None:
        raise InvalidConfig(f"{description}: no images there")
    try:
        Job(
            job_id=first.job_id or "",
            run_id=run_id,
            source=Source(bucket=first.bucket, key=first.key),
            output=output,
            recipe=parse_recipe(recipe),
        )
    except ValidationError as error:
        raise InvalidConfig(describe_validation_error(error)) from error
    return made


class Observer(Protocol):
    """Is told how far the sending of a run is."""

    def __call__(self, *, sent: int, listed: int, complete: bool) -> None:
        """Take note.

        Args:
            sent: Jobs on the queue.
            listed: Jobs that are known.
            complete: Whether these are all.
        """


def _unobserved(*, sent: int, listed: int, complete: bool) -> None:
    return


def send_run(
    client: SQSClient,
    queue_url: str,
    store: ObjectStore,
    ledger: LedgerConfig,
    plan: RunPlan,
    observer: Observer = _unobserved,
    rate: float | None = None,
) -> RunManifest:
    """List a run's jobs and send them, or go on where that was stopped; blocks.

    Args:
        client: Of SQS.
        queue_url: Where the messages go.
        store: Where the ledger is.
        ledger: The place of the ledger.
        plan: The run.
        observer: Is told of each batch that was sent.
        rate: Most messages per second; None sets no limit.

    Returns:
        The run's manifest. Where all of its jobs had been sent before, nothing was sent now.

    Raises:
        InvalidConfig: Another run of this name exists, or the queue is a FIFO queue.
        QueueUnavailable: The queue does not exist, or did not take every message. To send the
            run again under its name goes on with what was not sent.
        KeyboardInterrupt: So does it after Ctrl-C.
    """
    check_url(queue_url)
    # Before anything is written: a run that cannot start leaves no trace.
    with map_sqs_errors(f"{queue_url}: GetQueueAttributes"):
        client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    jobs = JobList(store, ledger, plan.run_id)
    manifest = RunManifest(
        run_id=plan.run_id,
        created_at=datetime.now(UTC),
        description=plan.description,
        output=plan.output,
        recipe=parse_recipe(plan.recipe),
        jobs=0,
        queue_url=queue_url,
        complete=False,
        source_digest=plan.source.digest,
    )
    manifest = _reconcile(store, ledger, manifest)
    before = jobs.sent() or Sent()
    if before.complete:
        return manifest
    write_manifest(store, ledger, manifest)
    listing = JobListWriter(jobs, plan.entries, manifest)
    sent = _Checkpoint(jobs, listing, before.jobs, observer)
    sent.store()
    listing.start()
    output = plan.output.model_dump()
    bodies = (
        message_body(plan.run_id, output, plan.recipe, entry)
        for entry in listing.entries(before.jobs)
    )
    try:
        send_messages(client, queue_url, bodies, sent.advance, rate=rate)
    except ForeedgeError as error:
        raise type(error)(
            f"{error.message} -- {sent.messages:,} messages are on the queue and nothing is lost: "
            f"bulk with --run-id {plan.run_id} goes on from there"
        ) from error
    finally:
        try:
            sent.store()
        finally:
            listing.stop()
    return listing.manifest


class _Checkpoint:
    """Stores how far the sending is, once for each part of the list and in the end."""

    def __init__(
        self, jobs: JobList, listing: JobListWriter, sent: int, observer: Observer
    ) -> None:
        self._jobs, self._listing, self._observer = jobs, listing, observer
        self.messages = sent
        self._stored = -1

    def advance(self, messages: int) -> None:
        """Take note of messages that were sent."""
        self.messages += messages
        if self.messages // PART_JOBS > self._stored // PART_JOBS:
            self.store()
        manifest = self._listing.manifest
        self._observer(sent=self.messages, listed=manifest.jobs, complete=manifest.complete)

    def store(self) -> None:
        """Store how far it is."""
        manifest = self._listing.manifest
        complete = manifest.complete and self.messages >= manifest.jobs
        self._jobs.write_sent(Sent(jobs=self.messages, complete=complete))
        self._stored = self.messages


def _reconcile(store: ObjectStore, ledger: LedgerConfig, manifest: RunManifest) -> RunManifest:
    """Return the manifest to store: that of the same run, where it was sent before."""
    try:
        known = read_manifest(store, ledger, manifest.run_id)
    except SourceNotFound:
        return manifest
    wrong = [
        name for name in ("output", "recipe") if getattr(known, name) != getattr(manifest, name)
    ]
    by_digest = known.source_digest is not None or manifest.source_digest is not None
    identity = "source_digest" if by_digest else "description"
    if getattr(known, identity) != getattr(manifest, identity):
        wrong.insert(0, f"source ({known.description}, as that was when the run was begun)")
    if wrong:
        raise InvalidConfig(
            f"run {manifest.run_id} exists and has another {' and another '.join(wrong)}: to go on "
            "with it, say what was said then; or choose another --run-id"
        )
    return known.model_copy(update={"queue_url": manifest.queue_url})


def _with_job_id(run_id: str, entry: Entry) -> Entry:
    return entry if entry.job_id else entry._replace(job_id=_job_id(run_id, entry))


def _job_id(run_id: str, entry: Entry) -> str:
    version = entry.version_id or entry.etag or ""
    content = "\0".join((run_id, entry.bucket, entry.key, version))
    return hashlib.sha256(content.encode()).hexdigest()[:_JOB_ID_HEX_DIGITS]
