"""The check of a queue: it answers, has a dead-letter queue, and a consumer may use both."""

from __future__ import annotations

from collections.abc import Iterator

from ingest.findings import Finding, checked, tried
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.redrive_policy import RedrivePolicy, read_redrive_policy
from serve_app.aws import aws_client
from serve_app.config import AppConfig, QueueConfig
from serve_app.errors import InvalidConfig

_NO_SUCH_MESSAGE = (
    "ReceiptHandleIsInvalid",
    "InvalidParameterValue",
    "InvalidParameterValueException",
)
_NOTHING_SENT = ("EmptyBatchRequest",)


def check_queue(config: AppConfig, queue: QueueConfig) -> Iterator[Finding]:
    """Yield what was found about a queue and its dead-letter queue. Blocks. No message is touched.

    The application also sends to its own queue: ``POST /v1/jobs`` does, and the sweep of a catalog.

    Args:
        config: Settings of the connection.
        queue: Settings of the queue.
    """
    client = QueueClient(aws_client("sqs", config.aws), queue.url)
    policy: list[RedrivePolicy] = []

    def read_policy() -> str:
        found = read_redrive_policy(client)
        if found is None:
            raise InvalidConfig(
                f"{queue.url} has no redrive policy, so that failures have no dead-letter queue; "
                "give it one with a maxReceiveCount of 3 or more"
            )
        policy.append(found)
        return f"{found.max_receives} receives, then {found.dead_letter_url}"

    yield checked("queue and dead-letter queue", read_policy)
    if policy:
        yield from _rights(client)
        yield _may_send(client)
        yield _may_send(QueueClient(client.client, policy[0].dead_letter_url))


def _rights(queue: QueueClient) -> Iterator[Finding]:
    client, url = queue.client, queue.url
    yield tried(
        "sqs:ReceiveMessage",
        url,
        lambda: client.receive_message(QueueUrl=url, MaxNumberOfMessages=0),
        _NO_SUCH_MESSAGE,
    )
    yield tried(
        "sqs:ChangeMessageVisibility",
        url,
        lambda: client.change_message_visibility(
            QueueUrl=url, ReceiptHandle="none", VisibilityTimeout=0
        ),
        _NO_SUCH_MESSAGE,
    )
    yield tried(
        "sqs:DeleteMessage",
        url,
        lambda: client.delete_message(QueueUrl=url, ReceiptHandle="none"),
        _NO_SUCH_MESSAGE,
    )


def _may_send(queue: QueueClient) -> Finding:
    """Return whether messages can be sent to a queue, by sending none."""
    return tried(
        "sqs:SendMessage",
        queue.url,
        lambda: queue.client.send_message_batch(QueueUrl=queue.url, Entries=[]),
        _NOTHING_SENT,
    )
