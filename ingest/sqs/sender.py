"""Send messages in batches: from several threads, no faster than a given rate, in a known order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ingest.sqs.backoff import RETRY_BASE_S, RETRY_MAX_S, backoff_s
from ingest.sqs.errors import map_sqs_errors
from ingest.sqs.limits import BATCH_ENTRIES, PAYLOAD_BYTES
from ingest.sqs.queue_client import QueueClient
from serve_app.errors import QueueUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import (
        BatchResultErrorEntryTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

SEND_THREADS = 8
"""Number of batches that are sent at the same time."""

_ATTEMPTS = 6


class RateLimiter:
    """Delays a sender so that it does not exceed a rate."""

    def __init__(
        self,
        per_s: float | None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the limiter.

        Args:
            per_s: Maximum number of messages per second; None sets no limit.
            sleep: Function that waits for a number of seconds.
            clock: Function that returns seconds and never goes back.
        """
        self._per_s, self._sleep, self._clock = per_s, sleep, clock
        self._free_at = clock()

    def wait(self, messages: int) -> None:
        """Return when this number of messages may be sent."""
        if self._per_s is None:
            return
        now = self._clock()
        if self._free_at > now:
            self._sleep(self._free_at - now)
        # Unused capacity is not carried over, so the limit holds at every moment.
        self._free_at = max(now, self._free_at) + messages / self._per_s


def send_messages(
    queue: QueueClient,
    bodies: Iterable[str],
    on_sent: Callable[[int], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    rate: float | None = None,
) -> None:
    """Send messages in batches from several threads. Blocks.

    Args:
        queue: Queue to send to.
        bodies: Bodies of the messages.
        on_sent: Called after each batch with its number of messages, in the order of the messages.
            When it is called, every earlier message is on the queue. This holds even if sending
            fails or is interrupted.
        sleep: Function that waits for a number of seconds.
        rate: Maximum number of messages per second; None sets no limit.

    Raises:
        QueueUnavailable: SQS did not accept some of the messages.
    """
    limiter = RateLimiter(rate, sleep)
    sending: deque[tuple[Future[None], int]] = deque()

    def finish_first() -> None:
        future, messages = sending[0]
        future.result()
        sending.popleft()
        on_sent(messages)

    with ThreadPoolExecutor(SEND_THREADS, "send") as pool:
        try:
            for batch in batches(bodies):
                limiter.wait(len(batch))
                future = pool.submit(_send_whole_batch, queue, batch, sleep)
                sending.append((future, len(batch)))
                if len(sending) >= 2 * SEND_THREADS:
                    finish_first()
            while sending:
                finish_first()
        except BaseException:
            # From the last to the first that runs: no batch is sent after one that is cancelled.
            all(future.cancel() for future, _ in reversed(sending))
            pool.shutdown()
            while sending and not (sending[0][0].cancelled() or sending[0][0].exception()):
                finish_first()
            raise


def batches(bodies: Iterable[str]) -> Iterator[list[str]]:
    """Yield messages in groups that fit into one call of SQS."""
    batch: list[str] = []
    batch_bytes = 0
    for body in bodies:
        body_bytes = len(body.encode())
        if batch and (len(batch) == BATCH_ENTRIES or batch_bytes + body_bytes > PAYLOAD_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(body)
        batch_bytes += body_bytes
    if batch:
        yield batch


def send_batch(
    queue: QueueClient,
    bodies: Sequence[str],
    *,
    attempts: int = _ATTEMPTS,
    sleep: Callable[[float], None] = time.sleep,
) -> list[QueueUnavailable | None]:
    """Send the messages of one batch, and send again those that fail through SQS's fault. Blocks.

    Args:
        queue: Queue to send to.
        bodies: Bodies of the messages; see ``batches``.
        attempts: Maximum number of times that a message is sent.
        sleep: Function that waits for a number of seconds.

    Returns:
        For each message, why SQS did not accept it, or None if it did.
    """
    errors: dict[int, QueueUnavailable] = {}
    remaining = list(range(len(bodies)))
    for attempt in range(attempts):
        if attempt:
            sleep(backoff_s(RETRY_BASE_S, attempt, RETRY_MAX_S))
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {"Id": str(index), "MessageBody": bodies[index]} for index in remaining
        ]
        for index in remaining:
            errors.pop(index, None)
        try:
            with map_sqs_errors(f"{queue.url}: SendMessage"):
                answer = queue.client.send_message_batch(QueueUrl=queue.url, Entries=entries)
        except QueueUnavailable as error:
            # The client has already tried the whole call several times.
            errors.update(dict.fromkeys(remaining, error))
            break
        failed = answer.get("Failed", [])
        errors.update({int(entry["Id"]): _refusal(queue.url, entry) for entry in failed})
        remaining = [int(entry["Id"]) for entry in failed if not entry.get("SenderFault")]
        if not remaining:
            break
    return [errors.get(index) for index in range(len(bodies))]


def _refusal(url: str, entry: BatchResultErrorEntryTypeDef) -> QueueUnavailable:
    reason = f"{entry.get('Code')}: {entry.get('Message', '')}"
    return QueueUnavailable(f"{url} refused a message: {reason}")


def _send_whole_batch(queue: QueueClient, batch: list[str], sleep: Callable[[float], None]) -> None:
    for error in send_batch(queue, batch, sleep=sleep):
        if error is not None:
            raise error
