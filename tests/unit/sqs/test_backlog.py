"""The number of messages in a queue, as SQS reports it."""

from __future__ import annotations

import pytest
from botocore.stub import Stubber
from mypy_boto3_sqs import SQSClient

from ingest.sqs.backlog import Backlog, read_backlog
from ingest.sqs.queue_client import QueueClient
from serve_app.errors import QueueUnavailable

QUEUE_URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/images"
WAITING = "ApproximateNumberOfMessages"
IN_FLIGHT = "ApproximateNumberOfMessagesNotVisible"


def test_both_counts_are_read_in_one_call(client: SQSClient, sqs: Stubber) -> None:
    sqs.add_response(
        "get_queue_attributes",
        {"Attributes": {WAITING: "12", IN_FLIGHT: "3"}},
        {"QueueUrl": QUEUE_URL, "AttributeNames": [WAITING, IN_FLIGHT]},
    )

    assert read_backlog(QueueClient(client, QUEUE_URL)) == Backlog(waiting=12, in_flight=3)


@pytest.mark.parametrize("attributes", [{}, {WAITING: "12"}, {WAITING: "x", IN_FLIGHT: "3"}])
def test_a_queue_that_reports_no_counts_is_not_taken_for_an_empty_one(
    client: SQSClient, sqs: Stubber, attributes: dict[str, str]
) -> None:
    sqs.add_response("get_queue_attributes", {"Attributes": attributes})

    with pytest.raises(QueueUnavailable, match="images does not report its messages"):
        read_backlog(QueueClient(client, QUEUE_URL))


def test_a_missing_queue_is_named_with_advice(client: SQSClient, sqs: Stubber) -> None:
    sqs.add_client_error("get_queue_attributes", "AWS.SimpleQueueService.NonExistentQueue")

    with pytest.raises(QueueUnavailable, match=r"images: GetQueueAttributes: .* -- create it"):
        read_backlog(QueueClient(client, QUEUE_URL))
