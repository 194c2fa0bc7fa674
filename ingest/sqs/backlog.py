"""Read how many messages a queue holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.sqs.errors import call_sqs

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


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
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    method = client.get_queue_attributes
    found = call_sqs(queue_url, "GetQueueAttributes", method, AttributeNames=names)
    waiting, in_flight = (int(found.get("Attributes", {}).get(name, 0)) for name in names)
    return Backlog(waiting, in_flight)
