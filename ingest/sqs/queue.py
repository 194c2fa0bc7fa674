"""The queue interface that the consumer needs, implemented by SQS.

A batch call of SQS succeeds even if every one of its entries fails, so the methods here return the
entries that failed. If a whole call fails they raise ``QueueUnavailable``, which says what to do.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self

from ingest.sqs.backlog import Backlog, read_backlog
from ingest.sqs.call_times import for_receives, for_short_calls
from ingest.sqs.dead_letters import Attributes, dead_letter_attributes
from ingest.sqs.errors import map_sqs_errors
from ingest.sqs.limits import RECEIVES_AT_ONCE, VISIBILITY_MAX_S
from ingest.sqs.line import Line
from ingest.sqs.queue_client import QueueClient, check_url
from ingest.sqs.redrive_policy import read_redrive_policy
from ingest.sqs.signed_calls import SignedCalls
from ingest.sqs.sqs_endpoint import SqsEndpoint
from serve_app.config import AwsConfig, QueueConfig

_ONCE_CALLS = RECEIVES_AT_ONCE + 8
_SHORT_CALLS = 32
_OTHER_CALLS = 8
_NO_FIELDS: Final[Mapping[str, int]] = {}
_TRACE_HEADER: Final = "AWSTraceHeader"
_SYSTEM_ATTRIBUTES = ("ApproximateReceiveCount", "SentTimestamp", _TRACE_HEADER)


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

    receives: SignedCalls
    """Line of receives that wait for messages."""
    once: SignedCalls
    """Line of extensions, and of receives that do not wait. Each is attempted once: the consumer
    repeats them itself, and an attempt must not hide behind another."""
    short: SignedCalls
    """Line of deletions and releases."""
    others: Line
    """Line of the calls that are rare, by boto3."""

    async def close(self) -> None:
        """Close every line."""
        self.others.close()
        await asyncio.gather(*(line.close() for line in (self.receives, self.once, self.short)))


class SqsQueue:
    """A queue in SQS. Belongs to one event loop."""

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
        short = for_short_calls(aws, hidden_s, 2)
        others = await Line.open(short, _OTHER_CALLS, "sqs")
        try:
            endpoint = await others.call(config.url, lambda: SqsEndpoint.of_client(others.client))
        except BaseException:
            others.close()
            raise
        waiting = for_receives(aws, config.long_poll_s)
        lines = Lines(
            SignedCalls(endpoint, waiting, RECEIVES_AT_ONCE),
            SignedCalls(endpoint, for_short_calls(aws, hidden_s, 1), _ONCE_CALLS),
            SignedCalls(endpoint, short, _SHORT_CALLS),
            others,
        )
        try:
            queue = cls(lines, config.url, config.default_max_receives)
            await queue._read_redrive_policy()
        except BaseException:
            await lines.close()
            raise
        return queue

    async def close(self) -> None:
        """Close all connections."""
        await self._lines.close()

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
            {
                "MaxNumberOfMessages": max_messages,
                "WaitTimeSeconds": wait_s,
                "VisibilityTimeout": visibility_s,
                "MessageSystemAttributeNames": _SYSTEM_ATTRIBUTES,
                "MessageAttributeNames": ["All"],
            },
        )
        return [_message(item) for item in answer.get("Messages", [])]

    async def extend(self, handles: Sequence[str], visibility_s: float) -> set[str]:
        """See Queue."""
        hidden_s = dict.fromkeys(handles, visibility_s)
        return await self._change_visibility(self._lines.once, hidden_s)

    async def delete(self, handles: Sequence[str]) -> set[str]:
        """See Queue."""
        return await self._batch(
            self._lines.short, "DeleteMessageBatch", dict.fromkeys(handles, _NO_FIELDS)
        )

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
        line = self._lines.others
        await line.call(
            f"{self._url}: SendMessage to the dead-letter queue",
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
        line = self._lines.others
        queue = QueueClient(line.client, self._url)
        where = f"{self._url}: GetQueueAttributes"
        return await line.call(where, lambda: read_backlog(queue))

    async def _read_redrive_policy(self) -> None:
        line = self._lines.others
        queue = QueueClient(line.client, self._url)
        where = f"{self._url}: GetQueueAttributes"
        policy = await line.call(where, lambda: read_redrive_policy(queue))
        if policy is not None:
            self._dead_letter_url = policy.dead_letter_url
            self._max_receives = policy.max_receives

    async def _change_visibility(self, line: SignedCalls, seconds: Mapping[str, float]) -> set[str]:
        fields = {
            handle: {"VisibilityTimeout": _whole_seconds(each)} for handle, each in seconds.items()
        }
        return await self._batch(line, "ChangeMessageVisibilityBatch", fields)

    async def _batch(
        self, line: SignedCalls, action: str, fields: Mapping[str, Mapping[str, int]]
    ) -> set[str]:
        """Make a batch call, and a second one for the entries that failed through SQS's fault.

        Args:
            line: Line of the call.
            action: Name of the call.
            fields: Further fields of each entry by receipt handle.

        Returns:
            The handles of the entries that failed.
        """
        failed: set[str] = set()
        remaining = list(fields)
        for last in (False, True):
            entries = [
                {"Id": str(number), "ReceiptHandle": handle, **fields[handle]}
                for number, handle in enumerate(remaining)
            ]
            answer = await self._call(line, action, {"Entries": entries})
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

    async def _call(
        self, line: SignedCalls, action: str, arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        # IAM has no actions for batches, and the text says what a policy must allow.
        with map_sqs_errors(f"{self._url}: {action.removesuffix('Batch')}"):
            return await line.call(action, {"QueueUrl": self._url, **arguments})


def _message(item: Any) -> Message:
    system = item.get("Attributes", {})
    return Message(
        message_id=item["MessageId"],
        receipt_handle=item["ReceiptHandle"],
        body=item["Body"],
        receive_count=int(system.get("ApproximateReceiveCount", 1)),
        sent_at=datetime.fromtimestamp(int(system.get("SentTimestamp", 0)) / 1000, UTC),
        attributes=_with_bytes(item.get("MessageAttributes", {})),
        trace_header=system.get(_TRACE_HEADER),
    )


def _with_bytes(attributes: Attributes) -> Attributes:
    """Return attributes whose binary values are bytes, which JSON carries in base64."""
    return {
        name: {**value, "BinaryValue": base64.b64decode(value["BinaryValue"])}
        if "BinaryValue" in value
        else value
        for name, value in attributes.items()
    }


def _whole_seconds(seconds: float) -> int:
    return max(0, min(VISIBILITY_MAX_S, round(seconds)))
