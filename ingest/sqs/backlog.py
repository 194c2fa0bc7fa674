"""Read how many messages a queue holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ingest.sqs.errors import map_sqs_errors

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


_COUNTS: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a queue holds, of this run and of others; approximate, as SQS says it."""

    waiting: int
    in_flight: int
    """Messages that consumers hold now."""


def read_backlog(client: SQSClient, queue_url: str) -> Backlog:
    """Return what a queue holds; blocks.

    Raises:
        QueueUnavailable: It does not exist or does not answer.
    """
    with map_sqs_errors(f"{queue_url}: GetQueueAttributes"):
        answer = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=[*_COUNTS])
    waiting, in_flight = (int(answer.get("Attributes", {}).get(name, 0)) for name in _COUNTS)
    return Backlog(waiting, in_flight)
