"""A queue's redrive policy: its dead-letter queue, and how often SQS delivers a message."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ingest.sqs.errors import map_sqs_errors
from ingest.sqs.queue_client import QueueClient
from serve_app.errors import InvalidConfig, QueueUnavailable

_MAX_RECEIVES = 10
"""SQS's default for a policy that does not set ``maxReceiveCount``."""


@dataclass(frozen=True, slots=True)
class RedrivePolicy:
    """The rule by which SQS moves a message that has been received too often."""

    dead_letter_url: str
    """URL of the dead-letter queue."""
    max_receives: int
    """Number of receives after which SQS moves a message to the dead-letter queue."""


def read_redrive_policy(queue: QueueClient) -> RedrivePolicy | None:
    """Return the redrive policy of a queue, or None if it has no dead-letter queue. Blocks.

    Raises:
        InvalidConfig: The queue is its own dead-letter queue, so every dead letter would come back.
        QueueUnavailable: The queue or its dead-letter queue does not exist or does not answer.
    """
    with map_sqs_errors(f"{queue.url}: GetQueueAttributes"):
        answer = queue.client.get_queue_attributes(
            QueueUrl=queue.url, AttributeNames=["RedrivePolicy"]
        )
    text = answer.get("Attributes", {}).get("RedrivePolicy", "{}")
    try:
        policy = json.loads(text)
        if "deadLetterTargetArn" not in policy:
            return None
        *_, account, name = policy["deadLetterTargetArn"].split(":")
        max_receives = int(policy.get("maxReceiveCount", _MAX_RECEIVES))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise QueueUnavailable(f"{queue.url}: unreadable redrive policy {text!r}") from error
    # Both are in the same account and region, as SQS demands.
    if name == queue.url.rstrip("/").rpartition("/")[2]:
        raise InvalidConfig(
            f"The queue {queue.url} is its own dead-letter queue, so that each dead letter would "
            "become a message again. Give its redrive policy another queue."
        )
    with map_sqs_errors(
        f"{queue.url}: GetQueueUrl of its dead-letter queue {name}",
        # SQS says the same to a role that may not ask for the URL.
        if_missing="create it, correct the queue's redrive policy, or allow sqs:GetQueueUrl on it",
    ):
        found = queue.client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)
    return RedrivePolicy(found["QueueUrl"], max_receives)
