"""Puts a run on the queue: one message for each photograph, and the manifest before them.

The id of a job is a function of the run and the object: a run that was sent twice, by a second
attempt after a broken connection for example, has the same jobs, and its report counts each once.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from ingest.ledger import RunManifest, read_manifest, write_manifest
from ingest.messages import SCHEMA_VERSION
from ingest.queue import BATCH_ENTRIES, check_url, map_sqs_error
from ingest.sources import Entry
from serve_app.config import LedgerConfig
from serve_app.contracts import Job, Output, Source, describe, parse_recipe
from serve_app.errors import InvalidConfig, InvalidRecipe, QueueUnavailable, SourceNotFound
from serve_app.storage import ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

BATCH_BYTES = 256 * 1024
"""Most bytes of one batch's bodies together; SQS's own limit."""

_ATTEMPTS = 6
_BACKOFF_BASE_S = 0.2
_JOB_ID_HEX_DIGITS = 32
_SEND_THREADS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that is ready to be sent."""

    run_id: str
    description: str
    entries: list[Entry]
    output: Output
    recipe: str | dict[str, Any]
    """As the messages carry it: a preset's name or an object."""
    duplicates: int = 0
    """Entries that named an object of the run a second time."""

    def bodies(self) -> Iterator[str]:
        """Yield the messages."""
        output = self.output.model_dump()
        for entry in self.entries:
            source = {"bucket": entry.bucket, "key": entry.key}
            if entry.version_id:
                source["version_id"] = entry.version_id
            if entry.etag:
                source["etag"] = entry.etag
            message = {
                "schema": SCHEMA_VERSION,
                "job_id": entry.job_id,
                "run_id": self.run_id,
                "source": source,
                "output": output,
                "recipe": self.recipe,
            }
            yield orjson.dumps(message).decode()


def new_run_id() -> str:
    """Return a run's name: the time, so that names sort, and some chance."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


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


def plan(
    entries: Iterable[Entry],
    *,
    run_id: str,
    description: str,
    output: Output,
    recipe: str | dict[str, Any],
) -> Plan:
    """Return the run of some photographs, each once and with its job's id.

    Raises:
        InvalidConfig: There are none, or the run's name or a key is not allowed.
    """
    jobs: dict[str, Entry] = {}
    total = 0
    for entry in entries:
        total += 1
        job_id = entry.job_id or _job_id(run_id, entry)
        jobs.setdefault(job_id, entry._replace(job_id=job_id))
    if not jobs:
        raise InvalidConfig(f"{description}: no images there")
    first = next(iter(jobs.values()))
    try:
        Job(
            job_id=first.job_id or "",
            run_id=run_id,
            source=Source(bucket=first.bucket, key=first.key),
            output=output,
            recipe=parse_recipe(recipe),
        )
    except ValidationError as error:
        raise InvalidConfig(describe(error)) from error
    return Plan(
        run_id=run_id,
        description=description,
        entries=list(jobs.values()),
        output=output,
        recipe=recipe,
        duplicates=total - len(jobs),
    )


def send(
    client: SQSClient,
    queue_url: str,
    store: ObjectStore,
    ledger: LedgerConfig,
    plan: Plan,
    on_sent: Callable[[int], None] = lambda _: None,
) -> RunManifest:
    """Store the run's manifest, then send its messages; blocks.

    Args:
        client: Of SQS.
        queue_url: Where the messages go.
        store: Where the ledger is.
        ledger: The place of the ledger.
        plan: The run.
        on_sent: Called with the number of messages after each accepted batch.

    Raises:
        InvalidConfig: Another run of this name exists, or the queue is a FIFO queue.
        QueueUnavailable: The queue does not exist, or did not take every message. Sending the
            run again under its name is safe.
    """
    check_url(queue_url)
    # Before the manifest is written: a run that cannot start leaves no trace.
    _call(queue_url, "GetQueueAttributes", client.get_queue_attributes, AttributeNames=["QueueArn"])
    manifest = RunManifest(
        run_id=plan.run_id,
        created_at=datetime.now(UTC),
        description=plan.description,
        output=plan.output,
        recipe=parse_recipe(plan.recipe),
        jobs=len(plan.entries),
        queue_url=queue_url,
    )
    manifest = _reconcile(store, ledger, manifest)
    write_manifest(store, ledger, manifest)
    send_bodies(client, queue_url, plan.bodies(), on_sent)
    return manifest


def send_bodies(
    client: SQSClient,
    queue_url: str,
    bodies: Iterable[str],
    on_sent: Callable[[int], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Send messages in batches from a few threads; blocks.

    Raises:
        QueueUnavailable: Some were not accepted after several attempts.
    """
    with ThreadPoolExecutor(_SEND_THREADS, "send") as pool:
        waiting: set[Future[int]] = set()
        try:
            for batch in batches(bodies):
                waiting.add(pool.submit(_send_batch, client, queue_url, batch, sleep))
                if len(waiting) >= 2 * _SEND_THREADS:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        on_sent(future.result())
            for future in waiting:
                on_sent(future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def batches(bodies: Iterable[str]) -> Iterator[list[str]]:
    """Yield messages in groups that one call of SQS takes."""
    batch: list[str] = []
    size = 0
    for body in bodies:
        body_bytes = len(body.encode())
        if batch and (len(batch) == BATCH_ENTRIES or size + body_bytes > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += body_bytes
    if batch:
        yield batch


def _send_batch(
    client: SQSClient, queue_url: str, batch: list[str], sleep: Callable[[float], None]
) -> int:
    remaining = batch
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(_BACKOFF_BASE_S * 2**attempt)
        entries = [{"Id": str(i), "MessageBody": body} for i, body in enumerate(remaining)]
        answer = _call(queue_url, "SendMessageBatch", client.send_message_batch, Entries=entries)
        failed = answer.get("Failed", [])
        if not failed:
            return len(batch)
        if refused := next((item for item in failed if item.get("SenderFault")), None):
            raise QueueUnavailable(
                f"{queue_url} refused a message: {refused.get('Code')}: {refused.get('Message')}"
            )
        remaining = [remaining[int(item["Id"])] for item in failed]
    raise QueueUnavailable(
        f"{queue_url} did not accept {len(remaining)} messages in {_ATTEMPTS} attempts "
        f"({failed[0].get('Code')}); send the run again under the same --run-id, which is safe"
    )


def _call(queue_url: str, action: str, method: Callable[..., Any], **arguments: Any) -> Any:
    try:
        return method(QueueUrl=queue_url, **arguments)
    except (ClientError, BotoCoreError, ValueError) as error:
        raise map_sqs_error(error, f"{queue_url}: {action}") from error


def _reconcile(store: ObjectStore, ledger: LedgerConfig, manifest: RunManifest) -> RunManifest:
    """Return the manifest to store: that of the same run, where it was sent before."""
    try:
        known = read_manifest(store, ledger, manifest.run_id)
    except SourceNotFound:
        return manifest
    for name in ("description", "output", "recipe"):
        if getattr(known, name) != getattr(manifest, name):
            raise InvalidConfig(
                f"run {manifest.run_id} exists and has another {name}: choose another --run-id"
            )
    return manifest.model_copy(update={"created_at": known.created_at})


def _job_id(run_id: str, entry: Entry) -> str:
    version = entry.version_id or entry.etag or ""
    content = "\0".join((run_id, entry.bucket, entry.key, version))
    return hashlib.sha256(content.encode()).hexdigest()[:_JOB_ID_HEX_DIGITS]
