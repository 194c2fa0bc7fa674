"""The queue: what the consumer needs of SQS, and SQS itself.

A batch call of SQS succeeds even where every one of its entries failed: the entries that did are
part of each answer here. Failures of a whole call become ``QueueUnavailable``, which says what to
do about it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from ingest.sqs.errors import map_sqs_errors
from ingest.sqs.limits import PAYLOAD_BYTES, VISIBILITY_MAX_S
from ingest.sqs.redrive_policy import read_redrive_policy
from serve_app.aws import aws_client
from serve_app.config import AwsConfig, QueueConfig
from serve_app.errors import InvalidConfig

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

T = TypeVar("T")

_THREADS = 8
_REASON_CHARACTERS = 1_000
# What SQS accepts in text is what XML 1.0 does.
_REFUSED = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of a message."""

    message_id: str
    receipt_handle: str
    """Names this delivery: another delivery of the same message has another handle."""
    body: str
    receive_count: int
    """Deliveries so far, this one included."""
    sent_at: datetime


class Queue(Protocol):
    """A queue with visibility time-outs. Batches have at most ``limits.BATCH_ENTRIES`` entries.

    Every method raises QueueUnavailable where the queue does not answer.
    """

    @property
    def max_receives(self) -> int:
        """Deliveries after which a message is not delivered again."""
        ...

    async def receive(self, max_messages: int, wait_s: int, visibility_s: int) -> list[Message]:
        """Wait up to ``wait_s`` for messages, and hide them for ``visibility_s``."""
        ...

    async def extend(self, handles: Sequence[str], visibility_s: float) -> set[str]:
        """Hide deliveries for that long from now; return the handles of those that are lost."""
        ...

    async def delete(self, handles: Sequence[str]) -> set[str]:
        """Delete messages; return the handles of those that were not."""
        ...

    async def release(self, message: Message, delay_s: float) -> None:
        """Let a message be delivered again after ``delay_s``, if this delivery still holds it."""
        ...

    async def dead_letter(
        self, message: Message, code: str, reason: str, job_id: str | None = None
    ) -> bool:
        """Copy a message to the dead-letter queue; return False where there is none."""
        ...


class SqsQueue:
    """A queue in SQS. Blocking calls run in threads of its own."""

    def __init__(
        self, client: SQSClient, pool: ThreadPoolExecutor, url: str, default_max_receives: int
    ) -> None:
        self._client = client
        self._pool = pool
        self._url = url
        self._dead_letter_url: str | None = None
        self._max_receives = default_max_receives

    @classmethod
    async def open(cls, config: QueueConfig, aws: AwsConfig) -> Self:
        """Return a queue that exists and answers.

        Raises:
            InvalidConfig: The queue is one that cannot be served.
            QueueUnavailable: It does not exist or does not answer, now.
        """
        check_url(config.url)
        pool = ThreadPoolExecutor(_THREADS, "sqs")
        try:
            loop = asyncio.get_running_loop()
            client = await loop.run_in_executor(pool, lambda: _client(aws))
            queue = cls(client, pool, config.url, config.default_max_receives)
            await queue._read_redrive_policy()
        except BaseException:
            pool.shutdown(wait=False)
            raise
        return queue

    def close(self) -> None:
        """End the threads once their calls have ended."""
        self._pool.shutdown(wait=False)

    @property
    def max_receives(self) -> int:
        """See Queue."""
        return self._max_receives

    async def receive(self, max_messages: int, wait_s: int, visibility_s: int) -> list[Message]:
        """See Queue."""
        answer = await self._call(
            "ReceiveMessage",
            lambda: self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=max_messages,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=visibility_s,
                MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            ),
        )
        return [_message(item) for item in answer.get("Messages", [])]

    async def extend(self, handles: Sequence[str], visibility_s: float) -> set[str]:
        """See Queue."""
        seconds = _whole_seconds(visibility_s)

        def change(entries: list[Any]) -> Any:
            for entry in entries:
                entry["VisibilityTimeout"] = seconds
            return self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

        return await self._batch("ChangeMessageVisibility", change, handles)

    async def delete(self, handles: Sequence[str]) -> set[str]:
        """See Queue."""

        def delete(entries: list[Any]) -> Any:
            return self._client.delete_message_batch(QueueUrl=self._url, Entries=entries)

        return await self._batch("DeleteMessage", delete, handles)

    async def release(self, message: Message, delay_s: float) -> None:
        """See Queue."""
        await self.extend([message.receipt_handle], delay_s)

    async def dead_letter(
        self, message: Message, code: str, reason: str, job_id: str | None = None
    ) -> bool:
        """See Queue."""
        url = self._dead_letter_url
        if url is None:
            return False
        texts = {"foreedge.code": code, "foreedge.job_id": job_id, "foreedge.reason": reason}
        attributes: Any = {
            name: {"DataType": "String", "StringValue": text}
            for name, text in fitting(texts, PAYLOAD_BYTES - len(message.body.encode())).items()
        }
        await self._call(
            "SendMessage to the dead-letter queue",
            lambda: self._client.send_message(
                QueueUrl=url, MessageBody=message.body, MessageAttributes=attributes
            ),
        )
        return True

    async def _read_redrive_policy(self) -> None:
        policy = await self._in_thread(lambda: read_redrive_policy(self._client, self._url))
        if policy is not None:
            self._dead_letter_url = policy.dead_letter_url
            self._max_receives = policy.max_receives

    async def _batch(
        self, action: str, call: Callable[[list[Any]], Any], handles: Sequence[str]
    ) -> set[str]:
        """Make a batch call, and once more for entries that failed through no fault of ours."""
        failed: set[str] = set()
        remaining = list(handles)
        for last in (False, True):
            entries = [{"Id": str(i), "ReceiptHandle": h} for i, h in enumerate(remaining)]
            answer = await self._call(action, partial(call, entries))
            again = []
            for entry in answer.get("Failed", []):
                handle = remaining[int(entry["Id"])]
                if entry.get("SenderFault", True) or last:
                    failed.add(handle)
                else:
                    again.append(handle)
            remaining = again
            if not remaining:
                break
        return failed

    async def _call(self, action: str, call: Callable[[], T]) -> T:
        """Run a blocking call in a thread; botocore's errors become QueueUnavailable."""
        with map_sqs_errors(f"{self._url}: {action}"):
            return await self._in_thread(call)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


def check_url(url: str) -> None:
    """Raise InvalidConfig for a queue that cannot be served."""
    if url.endswith(".fifo"):
        raise InvalidConfig(
            f"queue.url {url} is a FIFO queue; foreedge serves standard queues, since the order "
            "within a group would put its jobs one after the other"
        )


def attribute_text(text: str) -> str:
    """Return a text in the form that SQS accepts as an attribute's value, and not too long."""
    return _REFUSED.sub("\ufffd", text)[:_REASON_CHARACTERS]


def fitting(texts: Mapping[str, str | None], room_bytes: int) -> dict[str, str]:
    """Return the attributes that fit beside a body, the first ones first.

    Args:
        texts: Values by name.
        room_bytes: What SQS's limit leaves of a message.
    """
    fit = {}
    for name, text in texts.items():
        if value := attribute_text(text or ""):
            room_bytes -= len(name) + len("String") + len(value.encode())
            if room_bytes < 0:
                break
            fit[name] = value
    return fit


def _client(aws: AwsConfig) -> SQSClient:
    client: SQSClient = aws_client("sqs", aws, connections=_THREADS)
    return client


def _message(item: Any) -> Message:
    system = item.get("Attributes", {})
    return Message(
        message_id=item["MessageId"],
        receipt_handle=item["ReceiptHandle"],
        body=item["Body"],
        receive_count=int(system.get("ApproximateReceiveCount", 1)),
        sent_at=datetime.fromtimestamp(int(system.get("SentTimestamp", 0)) / 1000, UTC),
    )


def _whole_seconds(seconds: float) -> int:
    return max(0, min(VISIBILITY_MAX_S, round(seconds)))
