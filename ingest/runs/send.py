"""Put a run on the queue: one message for each image.

The jobs of a run are first listed in the ledger, part by part (``job_list``), and sent from that
list. So reading the source may be ahead of sending, no list of millions is in memory, and the
number of jobs is known as soon as the source is read. Sending can stop at any point and resume:
a job's place in the list says whether it is on the queue.

A job's id is a function of the run and the object. A job that is sent twice, e.g. by a second
attempt after a broken connection, keeps its id, so that a report counts it once.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
from pydantic import ValidationError

from ingest.messages.build import INVALID_RUN, message_body
from ingest.runs.cancellation import lift_cancellation
from ingest.runs.checkpoint import Checkpoint, Observer
from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList, Sent
from ingest.runs.job_list_writer import JobListWriter
from ingest.runs.live import is_live
from ingest.runs.manifest import RunManifest, read_manifest, write_manifest
from ingest.sources.base import Entry, ImageSource, ListedImages
from ingest.sources.distinct import Distinct
from ingest.sqs.queue_client import QueueClient, check_answers, check_url
from ingest.sqs.sender import send_messages
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.job import DERIVED_ID_HEX_DIGITS, Job, Output, Source
from serve_app.contracts.recipe import parse_recipe
from serve_app.errors import ForeedgeError, InvalidConfig, InvalidRecipe, SourceNotFound


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run that is ready to be sent."""

    folder: RunFolder
    description: str
    """Source of the images, for people, e.g. ``s3://b/in/``."""
    source: ImageSource
    output: Output
    recipe: str | dict[str, Any]
    """Recipe as messages carry it: the name of a preset, or an object."""
    limit: int | None = None
    """Most images of the run. None for all of them."""
    command: str = "bulk"
    """Command that sends the run, for advice."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.folder.run_id

    def entries(self, after: Entry | None = None, known: int = 0) -> Iterator[Entry]:
        """Yield the images, each once and with the id of its job. Blocks.

        Args:
            after: Last image that is known already; None if none is.
            known: Number of images that are known already.

        Raises:
            InvalidConfig: The source does not have the known images at its beginning any more.
        """
        if self.source.ordered:
            found = self.source.entries(self.source.place_of(after) if after else None)
            wanted = None if self.limit is None else max(0, self.limit - known)
            for entry in itertools.islice(found, wanted):
                yield self._with_job_id(entry)
            return
        entries = self._distinct_entries()
        last = next(itertools.islice(entries, known - 1, None), None) if known else None
        if after is not None and (last is None or last.job_id != after.job_id):
            raise InvalidConfig(
                f"Run {self.run_id} cannot be resumed: image {known:,} of {self.description} was "
                f"s3://{after.bucket}/{after.key} when the run was listed, and is another one now. "
                "Repeat the options that the run was started with, or choose another --run-id"
            )
        yield from entries

    def _distinct_entries(self) -> Iterator[Entry]:
        job_ids = Distinct()
        try:
            for entry in map(self._with_job_id, self.source.entries()):
                if job_ids.add(entry.job_id):
                    yield entry
        finally:
            job_ids.close()

    def _with_job_id(self, entry: Entry) -> Entry:
        if entry.job_id:
            return entry
        version = entry.version_id or entry.etag or ""
        content = "\0".join((self.run_id, entry.bucket, entry.key, version))
        digest = hashlib.sha256(content.encode()).hexdigest()
        return entry._replace(job_id=digest[:DERIVED_ID_HEX_DIGITS])


def recipe_argument(text: str) -> str | dict[str, Any]:
    """Return a recipe as messages carry it, from the name of a preset or a JSON object.

    Raises:
        InvalidRecipe: The text is neither, or the recipe has an unknown field or value.
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
    folder: RunFolder,
    description: str,
    output: Output,
    recipe: str | dict[str, Any],
) -> RunPlan:
    """Return the plan of a run. Reads no more than the name of the first image.

    Raises:
        InvalidConfig: There are no images, or the run's name or a key is not allowed.
    """
    refuse_reserved(folder.run_id)
    if not isinstance(source, ImageSource):
        source = ListedImages(source)
    plan = RunPlan(folder, description, source, output, recipe)
    first = next(plan.entries(), None)
    if first is None:
        raise InvalidConfig(f"{description}: no images there")
    try:
        Job(
            job_id=first.job_id or "",
            run_id=plan.run_id,
            source=Source(bucket=first.bucket, key=first.key),
            output=output,
            recipe=parse_recipe(recipe),
        )
    except ValidationError as error:
        raise InvalidConfig(describe_validation_error(error)) from error
    return plan


def refuse_reserved(run_id: str) -> None:
    """Raise InvalidConfig for the name of a run that other producers' messages have."""
    if run_id == INVALID_RUN or is_live(run_id):
        raise InvalidConfig(
            f"run_id: {run_id!r} is reserved for messages of other producers; choose another"
        )


class SendEntries(Protocol):
    """A function that sends the jobs of a run in the order of its list."""

    def __call__(
        self, queue: QueueClient, entries: Iterator[Entry], on_sent: Callable[[int], None]
    ) -> None:
        """Send jobs. Blocks.

        Args:
            queue: Queue to send to.
            entries: Jobs to send.
            on_sent: Function to call with the number of jobs that were sent since its last call,
                once all earlier ones are on the queue.
        """


def _ignore_progress(*, sent: int, listed: int, complete: bool) -> None:
    return


def send_run(
    queue: QueueClient,
    plan: RunPlan,
    observer: Observer = _ignore_progress,
    rate: float | None = None,
    send: SendEntries | None = None,
) -> RunManifest:
    """List the jobs of a run and send them, resuming a run that was stopped. Blocks.

    Args:
        queue: Queue to send to.
        plan: The run.
        observer: Function to call after each batch.
        rate: Maximum number of messages per second; None for no limit.
        send: Function that sends the jobs. None for one that sends their messages.

    Returns:
        The manifest of the run. If every job had been sent before, nothing is sent now.

    Raises:
        InvalidConfig: A different run of this name exists, or the queue is a FIFO queue.
        QueueUnavailable: The queue does not exist, or did not accept every message. Sending the
            run again with the same name resumes it.
        KeyboardInterrupt: The user pressed Ctrl-C. Sending the run again resumes it, too.
    """
    check_url(queue.url)
    # Before anything is written, so that a run that cannot start leaves no trace.
    check_answers(queue)
    manifest = open_manifest(plan, queue.url)
    lift_cancellation(plan.folder)
    job_list = JobList(plan.folder)
    before = job_list.sent() or Sent()
    if before.complete:
        return manifest
    write_manifest(plan.folder, manifest)
    writer = JobListWriter(job_list, plan.entries, manifest)
    checkpoint = Checkpoint(job_list, writer, before.jobs, observer)
    checkpoint.store()
    writer.start()
    send = send or _messages_of(plan, rate)
    try:
        send(queue, writer.entries(before.jobs), checkpoint.advance)
    except ForeedgeError as error:
        text = f"{error.message} -- messages sent: {checkpoint.sent:,}"
        # What is wrong with the source stays wrong, and the message says what to do instead.
        if not isinstance(error, InvalidConfig):
            text += (
                f". Nothing is lost: {plan.command} with --run-id {plan.run_id} resumes from there"
            )
        raise type(error)(text) from error
    finally:
        try:
            checkpoint.store()
        finally:
            writer.stop()
    return writer.manifest


def _messages_of(plan: RunPlan, rate: float | None) -> SendEntries:
    """Return the function that sends the messages of a run's jobs."""
    output = plan.output.model_dump()

    def send(queue: QueueClient, entries: Iterator[Entry], on_sent: Callable[[int], None]) -> None:
        bodies = (message_body(plan.run_id, output, plan.recipe, entry) for entry in entries)
        send_messages(queue, bodies, on_sent, rate=rate)

    return send


def open_manifest(plan: RunPlan, queue_url: str) -> RunManifest:
    """Return the manifest of a new run, or that of the run to resume. Blocks.

    Args:
        plan: The run.
        queue_url: URL of the queue to send to.

    Raises:
        InvalidConfig: A run of this name exists and differs from the plan.
    """
    wanted = RunManifest(
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
    try:
        known = read_manifest(plan.folder)
    except SourceNotFound:
        return wanted
    different = [
        name for name in ("output", "recipe") if getattr(known, name) != getattr(wanted, name)
    ]
    by_digest = known.source_digest is not None or wanted.source_digest is not None
    identity = "source_digest" if by_digest else "description"
    if getattr(known, identity) != getattr(wanted, identity):
        different.insert(0, f"source ({known.description}, with its content at that time)")
    if different:
        names = " and a different ".join(different)
        raise InvalidConfig(
            f"Run {plan.run_id} already exists with a different {names}. "
            "Repeat the original values to resume it, or choose another --run-id"
        )
    return known.model_copy(update={"queue_url": queue_url})
