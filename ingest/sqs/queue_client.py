"""An SQS client together with the queue that it is used for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.sqs.errors import map_sqs_errors
from serve_app.errors import InvalidConfig

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@dataclass(frozen=True, slots=True)
class QueueClient:
    """One SQS queue, and the client to call it with."""

    client: SQSClient
    url: str
    """URL of the queue."""


def check_url(url: str) -> None:
    """Raise InvalidConfig for a queue of a kind that cannot be served."""
    if url.endswith(".fifo"):
        raise InvalidConfig(
            f"queue.url {url} is a FIFO queue, in which the jobs of a group would run one by one. "
            "Use a standard queue."
        )


def check_answers(queue: QueueClient) -> None:
    """Return if a queue exists and answers. Blocks.

    Raises:
        QueueUnavailable: It does not exist, refuses, or does not answer.
    """
    with map_sqs_errors(f"{queue.url}: GetQueueAttributes"):
        queue.client.get_queue_attributes(QueueUrl=queue.url, AttributeNames=["QueueArn"])
