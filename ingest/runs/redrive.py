"""Puts the failed jobs of a run on the queue again, and clears them from its dead letters.

A redriven job keeps its id, so that its next result replaces the failure, and its output key, so
that a job which is redriven twice, or whose dead letter SQS redrives too, makes one object. What
was redriven is written down beside the results: such a failure is not redriven again, and the job
counts as one without a result until it ends anew. It is written down after the messages are on
the queue: whatever stops this in between costs a second message, never a job.
"""

from __future__ import annotations

import gzip
import itertools
import secrets
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from ingest.messages.build import message_body
from ingest.runs.folder import run_folder
from ingest.runs.manifest import RunManifest
from ingest.runs.records import FAILED, REDRIVEN, Record, Records
from ingest.sources.base import Entry
from ingest.sqs.errors import map_sqs_errors
from ingest.sqs.queue import BATCH_ENTRIES
from ingest.sqs.redrive_policy import read_redrive_policy
from ingest.sqs.sender import send_messages
from serve_app.config import LedgerConfig
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

_PART_RECORDS = 1_000
_HIDDEN_S = 300
_LOOK_S = 1


@dataclass(frozen=True, slots=True)
class Redriven:
    """What a redrive did."""

    job_ids: Set[str]
    """Jobs that were put on the queue."""
    waiting: int
    """Failed jobs that an earlier redrive put there, which have not ended since."""
    unreadable: int
    """Failed jobs whose record does not say which photograph it was."""


def redrive_failures(
    client: SQSClient,
    queue_url: str,
    store: ObjectStore,
    ledger: LedgerConfig,
    manifest: RunManifest,
    *,
    code: str | None = None,
    as_they_are_now: bool = False,
    recipe: str | dict[str, Any] | None = None,
    rate: float | None = None,
    on_sent: Callable[[int], None] = lambda _: None,
) -> Redriven:
    """Put failed jobs on the queue again; blocks.

    Args:
        client: Of SQS.
        queue_url: Where they go.
        store: Where the ledger is.
        ledger: Its place.
        manifest: The run.
        code: Only jobs that failed with this code.
        as_they_are_now: Take each photograph with the content that it has now, where a job named
            an ETag; else a job that failed with ``source_changed`` does so again.
        recipe: Another one than the run's, as messages carry it.
        rate: Most messages per second; None sets no limit.
        on_sent: Called with a number of messages that were sent.

    Raises:
        QueueUnavailable: The queue does not exist, or did not take every message; what it took is
            written down.
    """
    output = manifest.output.model_dump()
    recipe = manifest.recipe.model_dump(mode="json") if recipe is None else recipe
    sent: set[str] = set()
    unreadable = 0

    def readable(records: Iterator[Record]) -> Iterator[Record]:
        nonlocal unreadable
        for record in records:
            if record.get("source") is None:
                unreadable += 1
            else:
                yield record

    with Records(store, ledger, manifest.run_id, keep=["failed"]) as records:
        records.update()
        [(waiting,)] = records.query("SELECT count(*) FROM job WHERE rank = ?", [REDRIVEN])
        where = "WHERE rank = ? AND (? IS NULL OR code = ?) ORDER BY position"
        failed = readable(records.kept(where, [FAILED, code, code]))
        while some := list(itertools.islice(failed, _PART_RECORDS)):
            entries = [_entry(record, as_they_are_now) for record in some]
            bodies = [message_body(manifest.run_id, output, recipe, entry) for entry in entries]
            accepted = _Count(on_sent)
            try:
                send_messages(client, queue_url, bodies, accepted, rate=rate)
            finally:
                if accepted.total:
                    _write_down(store, ledger, manifest.run_id, some[: accepted.total])
            sent.update(record["job_id"] for record in some)
    return Redriven(sent, waiting, unreadable)


def clear_dead_letters(client: SQSClient, queue_url: str, job_ids: Set[str]) -> int:
    """Delete the dead letters of jobs; return their number; blocks.

    Other messages are hidden while this looks through the dead-letter queue, and then given back.

    Args:
        client: Of SQS.
        queue_url: The queue whose dead-letter queue it is.
        job_ids: The jobs.

    Raises:
        InvalidConfig: The queue has no dead-letter queue.
        QueueUnavailable: One of the two queues does not exist or does not answer.
    """
    policy = read_redrive_policy(client, queue_url)
    if policy is None:
        raise InvalidConfig(
            f"{queue_url} has no dead-letter queue to clear; leave out --clear-dead-letters"
        )
    dead_url = policy.dead_letter_url
    deleted = 0
    others: list[str] = []
    try:
        while letters := _receive(client, dead_url):
            ours = [item["ReceiptHandle"] for item in letters if _job_id(item) in job_ids]
            others += [i["ReceiptHandle"] for i in letters if i["ReceiptHandle"] not in ours]
            if ours:
                deleted += _delete(client, dead_url, ours)
    finally:
        for start in range(0, len(others), BATCH_ENTRIES):
            _release(client, dead_url, others[start : start + BATCH_ENTRIES])
    return deleted


def _receive(client: SQSClient, url: str) -> list[MessageTypeDef]:
    with map_sqs_errors(f"{url}: ReceiveMessage"):
        answer = client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=BATCH_ENTRIES,
            WaitTimeSeconds=_LOOK_S,
            VisibilityTimeout=_HIDDEN_S,
        )
    return answer.get("Messages", [])


def _delete(client: SQSClient, url: str, handles: list[str]) -> int:
    """Delete messages and return how many were deleted; blocks."""
    with map_sqs_errors(f"{url}: DeleteMessageBatch"):
        answer = client.delete_message_batch(
            QueueUrl=url,
            Entries=[{"Id": str(i), "ReceiptHandle": h} for i, h in enumerate(handles)],
        )
    return len(answer.get("Successful", []))


def _release(client: SQSClient, url: str, handles: list[str]) -> None:
    """Let messages be received again at once; blocks."""
    with map_sqs_errors(f"{url}: ChangeMessageVisibilityBatch"):
        client.change_message_visibility_batch(
            QueueUrl=url,
            Entries=[
                {"Id": str(i), "ReceiptHandle": h, "VisibilityTimeout": 0}
                for i, h in enumerate(handles)
            ],
        )


class _Count:
    """Adds up the messages that were sent."""

    def __init__(self, then: Callable[[int], None]) -> None:
        self.total = 0
        self._then = then

    def __call__(self, messages: int) -> None:
        self.total += messages
        self._then(messages)


def _entry(record: Record, as_they_are_now: bool) -> Entry:
    source = record["source"]
    etag = None if as_they_are_now else source.get("etag")
    return Entry(source["bucket"], source["key"], etag, source.get("version_id"), record["job_id"])


def _write_down(
    store: ObjectStore, ledger: LedgerConfig, run_id: str, records: list[Record]
) -> None:
    lines = (
        orjson.dumps(
            {
                "job_id": record["job_id"],
                "code": record.get("code"),
                # Which failure it was, by the clock of the one who recorded it.
                "failed_at": datetime.fromisoformat(record["finished_at"]).timestamp(),
            }
        )
        for record in records
    )
    data = gzip.compress(b"\n".join(lines) + b"\n", mtime=0)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(6)}.jsonl.gz"
    key = f"{run_folder(ledger, run_id)}redriven/{name}"
    store.put(ledger.bucket, key, data, "application/gzip")


def _job_id(message: Any) -> str | None:
    try:
        found = orjson.loads(message["Body"])["job_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
