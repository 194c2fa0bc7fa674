"""The number of messages in a queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ingest.sqs.errors import map_sqs_errors
from serve_app.errors import QueueUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_COUNTS: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


@dataclass(frozen=True, slots=True)
class Backlog:
    """Approximate numbers of messages in a queue, of every run and producer."""

    waiting: int
    """Messages that a consumer could receive now."""
    in_flight: int
    """Messages that consumers have received and not deleted yet."""


def read_backlog(client: SQSClient, queue_url: str) -> Backlog:
    """Return the number of messages in a queue, as SQS approximates it. Blocks.

    Raises:
        QueueUnavailable: The queue does not exist, does not answer, or does not report its counts.
    """
    with map_sqs_errors(f"{queue_url}: GetQueueAttributes"):
        answer = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=[*_COUNTS])
    attributes = answer.get("Attributes", {})
    try:
        waiting, in_flight = (int(attributes[name]) for name in _COUNTS)
    except (KeyError, ValueError) as error:
        raise QueueUnavailable(f"{queue_url} does not report its messages: {error!r}") from error
    return Backlog(waiting, in_flight)
