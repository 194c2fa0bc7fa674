"""The number of messages in a queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ingest.sqs.errors import map_sqs_errors
from ingest.sqs.queue_client import QueueClient
from serve_app.errors import QueueUnavailable

_DELAYED: Final = "ApproximateNumberOfMessagesDelayed"
_COUNTS: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


@dataclass(frozen=True, slots=True)
class Backlog:
    """Approximate numbers of messages in a queue, of every run and producer."""

    waiting: int
    """Messages that a consumer could receive now."""
    in_flight: int
    """Messages that consumers have received and not deleted yet."""


def read_backlog(queue: QueueClient) -> Backlog:
    """Return the number of messages in a queue, as SQS approximates it. Blocks.

    Raises:
        QueueUnavailable: The queue does not exist, does not answer, or does not report its counts.
    """
    with map_sqs_errors(f"{queue.url}: GetQueueAttributes"):
        answer = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=[*_COUNTS])
    attributes = answer.get("Attributes", {})
    try:
        waiting, in_flight = (int(attributes[name]) for name in _COUNTS)
    except (KeyError, ValueError) as error:
        raise QueueUnavailable(f"{queue.url} does not report its messages: {error!r}") from error
    return Backlog(waiting, in_flight)


def read_delayed(queue: QueueClient) -> int:
    """Return the number of messages that a queue holds back after they were sent. Blocks.

    Raises:
        QueueUnavailable: The queue does not exist or does not answer.
    """
    with map_sqs_errors(f"{queue.url}: GetQueueAttributes"):
        answer = queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=[_DELAYED])
    return int(answer.get("Attributes", {}).get(_DELAYED, "0"))
