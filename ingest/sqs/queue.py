"""The queue interface that the consumer needs, implemented by SQS.

A batch call of SQS succeeds even if every one of its entries fails, so the methods here return the
entries that failed. If a whole call fails they raise ``QueueUnavailable``, which says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol, Self, TypeVar

from ingest.sqs.backlog import Backlog, read_backlog
from ingest.sqs.call_times import for_receives, for_short_calls
from ingest.sqs.dead_letters import Attributes, dead_letter_attributes
from ingest.sqs.limits import RECEIVES_AT_ONCE, VISIBILITY_MAX_S
from ingest.sqs.line import Line
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.redrive_policy import read_redrive_policy
from serve_app.config import AwsConfig, QueueConfig
from serve_app.errors import InvalidConfig

T = TypeVar("T")

_ONCE_THREADS = RECEIVES_AT_ONCE + 8
_SHORT_CALL_THREADS = 16
_TRACE_HEADER: Final = "AWSTraceHeader"


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of a message."""

    message_id: str
    receipt_handle: str
    """Handle of this delivery. Another delivery of the same message has another handle."""
    body: str
    receive_count: int
    """Number of deliveries so far, including this one."""
    sent_at: datetime
    """Time at which the producer sent the message."""
    attributes: Attributes = field(default_factory=dict)
    """What the producer attached to the body."""
    trace_header: str | None = None
    """Header of AWS X-Ray by which a trace continues with this message."""


class Queue(Protocol):
    """A queue with visibility timeouts. Batches have at most ``limits.BATCH_ENTRIES`` entries.

    Every method raises QueueUnavailable if the queue does not answer.
    """

    @property
    def max_receives(self) -> int:
        """Number of deliveries after which a message is not delivered again."""
        ...

    async def receive(self, max_messages: int, wait_s: int, visibility_s: int) -> list[Message]:
        """Wait up to ``wait_s`` for messages, and hide them for ``visibility_s``."""
        ...

    async def extend(self, handles: Sequence[str], visibility_s: float) -> set[str]:
        """Hide deliveries for that many seconds, and return the handles of those that are lost."""
        ...

    async def delete(self, handles: Sequence[str]) -> set[str]:
        """Delete messages, and return the handles of those that were not deleted."""
        ...

    async def release(self, delays_s: Mapping[str, float]) -> set[str]:
        """Make messages visible again after delays, if these deliveries still hold them.

        Args:
            delays_s: Delays in seconds by receipt handle.

        Returns:
            The handles of those that were not released.
        """
        ...

    async def dead_letter(
        self, message: Message, code: str, reason: str, job_id: str | None = None
    ) -> bool:
        """Copy a message to the dead-letter queue, or return False if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Lines:
    """The clients of a queue. Calls that wait or hang on one line delay none on another."""

    receives: Line
    """Line of receives that wait for messages."""
    once: Line
    """Line of extensions, and of receives that do not wait. boto3 makes one attempt for each: the
    consumer repeats them itself, and an attempt must not hide behind another."""
    short: Line
    """Line of all other calls."""

    def close(self) -> None:
        """Close every line."""
        for line in (self.receives, self.once, self.short):
            line.close()


class SqsQueue:
    """A queue in SQS. Its blocking calls run in its own threads."""

    def __init__(self, lines: Lines, url: str, default_max_receives: int) -> None:
        self._lines = lines
        self._url = url
        self._dead_letter_url: str | None = None
        self._max_receives = default_max_receives

    @classmethod
    async def open(cls, config: QueueConfig, aws: AwsConfig) -> Self:
        """Open a queue, and check that it exists and answers.

        Raises:
            InvalidConfig: The queue is of a kind that cannot be served.
            QueueUnavailable: The queue or its dead-letter queue does not exist or does not answer.
        """
        check_url(config.url)
        hidden_s = config.visibility_timeout_s
        lines = Lines(
            await Line.open(for_receives(aws, config.long_poll_s), RECEIVES_AT_ONCE, "sqs-wait"),
            await Line.open(for_short_calls(aws, hidden_s, 1), _ONCE_THREADS, "sqs-once"),
            await Line.open(for_short_calls(aws, hidden_s, 2), _SHORT_CALL_THREADS, "sqs"),
        )
        try:
            queue = cls(lines, config.url, config.default_max_receives)
            await queue._read_redrive_policy()
        except BaseException:
            lines.close()
            raise
        return queue

    def close(self) -> None:
        """Let the threads end after their present calls."""
        self._lines.close()

    @property
    def max_receives(self) -> int:
        """See Queue."""
        return self._max_receives

    async def receive(self, max_messages: int, wait_s: int, visibility_s: int) -> list[Message]:
        """See Queue."""
        line = self._lines.receives if wait_s else self._lines.once
        answer = await self._call(
            line,
            "ReceiveMessage",
            lambda: line.client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=max_messages,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=visibility_s,
                MessageSystemAttributeNames=[
                    "ApproximateReceiveCount",
                    "SentTimestamp",
                    _TRACE_HEADER,
                ],
                MessageAttributeNames=["All"],
            ),
        )
        return [_message(item) for item in answer.get("Messages", [])]

    async def extend(self, handles: Sequence[str], visibility_s: float) -> set[str]:
        """See Queue."""
        hidden_s = dict.fromkeys(handles, visibility_s)
        return await self._change_visibility(self._lines.once, hidden_s)

    async def delete(self, handles: Sequence[str]) -> set[str]:
        """See Queue."""
        line = self._lines.short

        def delete(entries: list[Any]) -> Any:
            return line.client.delete_message_batch(QueueUrl=self._url, Entries=entries)

        return await self._batch(line, "DeleteMessage", delete, handles)

    async def release(self, delays_s: Mapping[str, float]) -> set[str]:
        """See Queue."""
        return await self._change_visibility(self._lines.short, delays_s)

    async def dead_letter(
        self, message: Message, code: str, reason: str, job_id: str | None = None
    ) -> bool:
        """See Queue."""
        url = self._dead_letter_url
        if url is None:
            return False
        attributes: Any = dead_letter_attributes(
            message.body, message.attributes, code, reason, job_id
        )
        system: Any = {}
        if message.trace_header:
            header = {"DataType": "String", "StringValue": message.trace_header}
            system["MessageSystemAttributes"] = {_TRACE_HEADER: header}
        line = self._lines.short
        await self._call(
            line,
            "SendMessage to the dead-letter queue",
            lambda: line.client.send_message(
                QueueUrl=url, MessageBody=message.body, MessageAttributes=attributes, **system
            ),
        )
        return True

    async def backlog(self) -> Backlog:
        """Return the number of messages in the queue, as SQS approximates it.

        Raises:
            QueueUnavailable: The queue does not answer, or does not report its counts.
        """
        line = self._lines.short
        queue = QueueClient(line.client, self._url)
        return await self._call(line, "GetQueueAttributes", lambda: read_backlog(queue))

    async def _read_redrive_policy(self) -> None:
        line = self._lines.short
        queue = QueueClient(line.client, self._url)
        policy = await self._call(line, "GetQueueAttributes", lambda: read_redrive_policy(queue))
        if policy is not None:
            self._dead_letter_url = policy.dead_letter_url
            self._max_receives = policy.max_receives

    async def _change_visibility(self, line: Line, seconds: Mapping[str, float]) -> set[str]:
        def change(entries: list[Any]) -> Any:
            for entry in entries:
                entry["VisibilityTimeout"] = _whole_seconds(seconds[entry["ReceiptHandle"]])
            return line.client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

        return await self._batch(line, "ChangeMessageVisibility", change, list(seconds))

    async def _batch(
        self, line: Line, action: str, call: Callable[[list[Any]], Any], handles: Sequence[str]
    ) -> set[str]:
        """Make a batch call, and a second one for the entries that failed through SQS's fault.

        Returns:
            The handles of the entries that failed.
        """
        failed: set[str] = set()
        remaining = list(handles)
        for last in (False, True):
            entries = [{"Id": str(i), "ReceiptHandle": h} for i, h in enumerate(remaining)]
            answer = await self._call(line, action, partial(call, entries))
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

    async def _call(self, line: Line, action: str, call: Callable[[], T]) -> T:
        return await line.call(f"{self._url}: {action}", call)


def check_url(url: str) -> None:
    """Raise InvalidConfig for a queue of a kind that cannot be served."""
    if url.endswith(".fifo"):
        raise InvalidConfig(
            f"queue.url {url} is a FIFO queue, in which the jobs of a group would run one by one. "
            "Use a standard queue."
        )


def _message(item: Any) -> Message:
    system = item.get("Attributes", {})
    return Message(
        message_id=item["MessageId"],
        receipt_handle=item["ReceiptHandle"],
        body=item["Body"],
        receive_count=int(system.get("ApproximateReceiveCount", 1)),
        sent_at=datetime.fromtimestamp(int(system.get("SentTimestamp", 0)) / 1000, UTC),
        attributes=item.get("MessageAttributes", {}),
        trace_header=system.get(_TRACE_HEADER),
    )


def _whole_seconds(seconds: float) -> int:
    return max(0, min(VISIBILITY_MAX_S, round(seconds)))
