"""Put the failed jobs of a run on the queue again, and delete their dead letters.

A redriven job keeps its id, so that its next result replaces the failure. It also keeps its output
key, so that a job that is redriven twice, or whose dead letter SQS redrives as well, makes one
object.

Each redriven failure is recorded next to the results. It is not redriven again, and its job counts
as one without a result until it ends again. The record is written after the messages are on the
queue, so an interruption in between costs a second message and never a job.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from ingest.messages.build import message_body
from ingest.messages.parse import is_catalog
from ingest.runs.folder import RunFolder
from ingest.runs.manifest import RunManifest
from ingest.runs.record_table import FAILED, REDRIVEN
from ingest.runs.records import Record, Records
from ingest.sources.base import Entry
from ingest.sqs.dead_letters import JOB_ID_ATTRIBUTE, earlier_job_id
from ingest.sqs.errors import map_sqs_errors
from ingest.sqs.limits import BATCH_ENTRIES
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.redrive_policy import read_redrive_policy
from ingest.sqs.sender import send_messages
from serve_app.errors import InvalidConfig

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_PART_RECORDS = 1_000
_HIDDEN_S = 900
_MOST_HIDDEN = 100_000
"""Most dead letters that are hidden at the same time. SQS allows 120,000 for a queue ("in flight",
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html)."""
_POLL_S = 1


@dataclass(frozen=True, slots=True)
class RedriveOptions:
    """Which failures to redrive, and what to change about their jobs."""

    code: str | None = None
    """Error code of the failures to redrive. None for all of them."""
    as_they_are_now: bool = False
    """Whether to process the present content of each image. Otherwise a job that named an ETag
    and failed with ``source_changed`` fails again."""
    recipe: str | dict[str, Any] | None = None
    """Recipe as messages carry it. None for the recipe of the run."""


@dataclass(frozen=True, slots=True)
class Redriven:
    """The result of a redrive."""

    job_ids: Set[str]
    """Ids of the jobs that were put on the queue."""
    waiting: int
    """Number of failed jobs that an earlier redrive put on the queue and that have not ended."""
    unreadable: int
    """Number of failed jobs whose record does not name an image."""


def redrive_failures(
    queue: QueueClient,
    folder: RunFolder,
    manifest: RunManifest,
    options: RedriveOptions,
    *,
    rate: float | None = None,
    on_sent: Callable[[int], None] = lambda _: None,
) -> Redriven:
    """Put failed jobs on the queue again. Blocks.

    Args:
        queue: Queue to send to.
        folder: Folder of the run.
        manifest: Manifest of the run.
        options: Choice of the failures, and changes to their jobs.
        rate: Maximum number of messages per second; None for no limit.
        on_sent: Function to call with the number of messages in each batch that was sent.

    Raises:
        QueueUnavailable: The queue does not exist, or did not accept every message. Those that it
            accepted are recorded.
    """
    output = manifest.output.model_dump()
    recipe = options.recipe
    if recipe is None:
        recipe = manifest.recipe.stored()
    sent: set[str] = set()
    with Records(folder, keep=["failed"]) as records:
        records.update()
        failures = _Failures(records, options.code)
        while batch := list(itertools.islice(failures, _PART_RECORDS)):
            _refuse_recipe(batch, options)
            bodies = [
                message_body(
                    manifest.run_id, output, recipe, _entry(record, options.as_they_are_now)
                )
                for record in batch
            ]
            accepted = _MessageCount(on_sent)
            try:
                send_messages(queue, bodies, accepted.add, rate=rate)
            finally:
                if accepted.total:
                    _record_redriven(folder, batch[: accepted.total])
            sent.update(record["job_id"] for record in batch)
        return Redriven(sent, failures.waiting, failures.unreadable)


def redriven_jobs(folder: RunFolder) -> Set[str]:
    """Return the ids of the jobs that were redriven and have not failed since. Blocks.

    Their dead letters are of earlier attempts. That of a job that failed again is of its failure.
    """
    with Records(folder) as records:
        records.update()
        redriven = {
            orjson.loads(line)["job_id"]
            for _, members in folder.read_parts(folder.part_keys("redriven"))
            for _, lines in members or []
            for line in lines
        }
        return {job_id for job_id in redriven if records.rank(job_id) not in (None, FAILED)}


class _Failures:
    """The failures to redrive: an iterator that counts those whose image is unknown."""

    def __init__(self, records: Records, code: str | None) -> None:
        [(self.waiting,)] = records.query("SELECT count(*) FROM job WHERE rank = ?", [REDRIVEN])
        self.unreadable = 0
        self._failed = records.failures(code)

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        for record in self._failed:
            if record.get("source") is not None or record.get("book_id") is not None:
                return record
            self.unreadable += 1
        raise StopIteration


class _MessageCount:
    """The number of messages that were sent."""

    def __init__(self, on_sent: Callable[[int], None]) -> None:
        self.total = 0
        self._on_sent = on_sent

    def add(self, messages: int) -> None:
        """Count messages, and pass their number on."""
        self.total += messages
        self._on_sent(messages)


def clear_dead_letters(
    queue: QueueClient,
    job_ids: Set[str],
    on_incomplete: Callable[[int], None] = lambda _: None,
) -> int:
    """Delete the dead letters of jobs, and return their number. Blocks.

    Other dead letters are hidden during the search, and released at its end. The search ends when
    the queue has nothing more to show. It also ends when it has hidden as many as it may, or when a
    hidden one comes back, since the time for which SQS hides them is over then.

    Args:
        queue: The queue that the dead-letter queue belongs to.
        job_ids: Ids of the jobs.
        on_incomplete: Function to call with the number of other dead letters that were looked at,
            if the search ended before the queue did.

    Raises:
        InvalidConfig: The queue has no dead-letter queue.
        QueueUnavailable: One of the two queues does not exist or does not answer.
    """
    policy = read_redrive_policy(queue)
    if policy is None:
        raise InvalidConfig(
            f"{queue.url} has no dead-letter queue to clear; leave out --clear-dead-letters"
        )
    dead_letters = QueueClient(queue.client, policy.dead_letter_url)
    deleted = 0
    others: dict[str, str] = {}
    comes_back = False
    try:
        while messages := _receive(dead_letters):
            wanted = []
            for message in messages:
                if _job_id(message) in job_ids:
                    wanted.append(message["ReceiptHandle"])
                    continue
                comes_back = comes_back or message["MessageId"] in others
                others[message["MessageId"]] = message["ReceiptHandle"]
            if wanted:
                deleted += _delete(dead_letters, wanted)
            if comes_back or len(others) >= _MOST_HIDDEN:
                on_incomplete(len(others))
                break
    finally:
        handles = list(others.values())
        for start in range(0, len(handles), BATCH_ENTRIES):
            _release(dead_letters, handles[start : start + BATCH_ENTRIES])
    return deleted


def _receive(queue: QueueClient) -> list[MessageTypeDef]:
    with map_sqs_errors(f"{queue.url}: ReceiveMessage"):
        answer = queue.client.receive_message(
            QueueUrl=queue.url,
            MaxNumberOfMessages=BATCH_ENTRIES,
            WaitTimeSeconds=_POLL_S,
            VisibilityTimeout=_HIDDEN_S,
            MessageAttributeNames=[JOB_ID_ATTRIBUTE],
        )
    return answer.get("Messages", [])


def _delete(queue: QueueClient, handles: list[str]) -> int:
    """Delete messages and return how many were deleted. Blocks."""
    with map_sqs_errors(f"{queue.url}: DeleteMessage"):
        answer = queue.client.delete_message_batch(
            QueueUrl=queue.url,
            Entries=[{"Id": str(i), "ReceiptHandle": h} for i, h in enumerate(handles)],
        )
    return len(answer.get("Successful", []))


def _release(queue: QueueClient, handles: list[str]) -> None:
    """Let messages be received again at once. Blocks."""
    with map_sqs_errors(f"{queue.url}: ChangeMessageVisibility"):
        queue.client.change_message_visibility_batch(
            QueueUrl=queue.url,
            Entries=[
                {"Id": str(i), "ReceiptHandle": h, "VisibilityTimeout": 0}
                for i, h in enumerate(handles)
            ],
        )


def _refuse_recipe(records: list[Record], options: RedriveOptions) -> None:
    """Refuse another recipe for jobs of a book collection, whose messages carry none."""
    book = next((each["book_id"] for each in records if each.get("book_id") is not None), None)
    if options.recipe is not None and book is not None:
        raise InvalidConfig(
            f"the run has jobs of a book collection, such as one of book {book}, which are always "
            "made by the recipe catalog. Leave out --recipe"
        )


def _entry(record: Record, as_they_are_now: bool) -> Entry:
    # A job of a collection may have failed before its image was known.
    source = record.get("source") or {"bucket": "", "key": ""}
    etag = None if as_they_are_now else source.get("etag")
    return Entry(
        source["bucket"],
        source["key"],
        etag,
        source.get("version_id"),
        record["job_id"],
        record.get("book_id"),
        record.get("image_id"),
    )


def _record_redriven(folder: RunFolder, failures: list[Record]) -> None:
    lines = [
        orjson.dumps(
            {
                "job_id": failure["job_id"],
                "code": failure.get("code"),
                # Identifies the failure, by the clock of the consumer that recorded it.
                "failed_at": datetime.fromisoformat(failure["finished_at"]).timestamp(),
            }
        )
        for failure in failures
    ]
    folder.write_part(folder.new_part_key("redriven", secrets.token_hex(6)), lines)


def _job_id(message: Any) -> str | None:
    """Return the id of the job that a dead letter is about, or None if nothing says it."""
    try:
        content = orjson.loads(message["Body"])
        found = content["job_id"]
        if is_catalog(content):
            # A consumer writes it in lower case, however the application writes it.
            found = str(UUID(found))
    except (ValueError, KeyError, TypeError, AttributeError):
        found = None
    # An event, or a message without an id, got its id from the consumer.
    return found if isinstance(found, str) else earlier_job_id(message.get("MessageAttributes", {}))
