"""Sends messages: in batches, from several threads, no faster than asked, and in a known order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ingest.sqs.errors import map_sqs_errors
from ingest.sqs.queue import BATCH_ENTRIES
from serve_app.errors import QueueUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

BATCH_BYTES = 256 * 1024
"""Most bytes of one batch's bodies together; SQS's own limit."""

SEND_THREADS = 8
"""Batches that are sent at the same time."""

_ATTEMPTS = 6
_BACKOFF_BASE_S = 0.2


class RateLimiter:
    """Holds a sender to a rate."""

    def __init__(
        self,
        per_s: float | None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin now.

        Args:
            per_s: Most messages per second; None sets no limit.
            sleep: Waits, in seconds.
            clock: Seconds; never goes back.
        """
        self._per_s, self._sleep, self._clock = per_s, sleep, clock
        self._free_at = clock()

    def wait(self, messages: int) -> None:
        """Return when that many may be sent."""
        if self._per_s is None:
            return
        now = self._clock()
        if self._free_at > now:
            self._sleep(self._free_at - now)
        # What was not used in a pause is not made up for: the limit holds at any moment.
        self._free_at = max(now, self._free_at) + messages / self._per_s


def send_messages(
    client: SQSClient,
    queue_url: str,
    bodies: Iterable[str],
    on_sent: Callable[[int], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    rate: float | None = None,
) -> None:
    """Send messages in batches from several threads; blocks.

    Args:
        client: Of SQS.
        queue_url: Where they go.
        bodies: The messages.
        on_sent: Called after a batch, with its number of messages; in the order of the messages,
            also where the sending fails or is interrupted: every earlier one is on the queue.
        sleep: Waits, in seconds.
        rate: Most messages per second; None sets no limit.

    Raises:
        QueueUnavailable: Some were not accepted after several attempts.
    """
    pace = RateLimiter(rate, sleep)
    sending: deque[tuple[Future[None], int]] = deque()

    def settle() -> None:
        future, messages = sending[0]
        future.result()
        sending.popleft()
        on_sent(messages)

    with ThreadPoolExecutor(SEND_THREADS, "send") as pool:
        try:
            for batch in batches(bodies):
                pace.wait(len(batch))
                future = pool.submit(_send_batch, client, queue_url, batch, sleep)
                sending.append((future, len(batch)))
                if len(sending) >= 2 * SEND_THREADS:
                    settle()
            while sending:
                settle()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            while sending and not (sending[0][0].cancelled() or sending[0][0].exception()):
                settle()
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
) -> None:
    remaining = batch
    for attempt in range(_ATTEMPTS):
        if attempt:
            sleep(_BACKOFF_BASE_S * 2**attempt)
        with map_sqs_errors(f"{queue_url}: SendMessageBatch"):
            answer = client.send_message_batch(
                QueueUrl=queue_url,
                Entries=[{"Id": str(i), "MessageBody": body} for i, body in enumerate(remaining)],
            )
        failed = answer.get("Failed", [])
        if not failed:
            return
        if refused := next((item for item in failed if item.get("SenderFault")), None):
            raise QueueUnavailable(
                f"{queue_url} refused a message: {refused.get('Code')}: {refused.get('Message')}"
            )
        remaining = [remaining[int(item["Id"])] for item in failed]
    raise QueueUnavailable(
        f"{queue_url} did not accept {len(remaining)} messages in {_ATTEMPTS} attempts "
        f"({failed[0].get('Code')})"
    )
