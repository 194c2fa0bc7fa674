"""The redrive policy of a queue, and what is said if its dead-letter queue is gone."""

from __future__ import annotations

import json

import pytest
from botocore.stub import Stubber
from mypy_boto3_sqs import SQSClient

from ingest.runs.redrive import clear_dead_letters
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.redrive_policy import RedrivePolicy, read_redrive_policy
from serve_app.errors import InvalidConfig, QueueUnavailable

QUEUE_URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/images"
DEAD_URL = f"{QUEUE_URL}-dead"
POLICY = {
    "deadLetterTargetArn": "arn:aws:sqs:eu-west-1:123456789012:images-dead",
    "maxReceiveCount": 5,
}


def answer_policy(sqs: Stubber, text: str | None) -> None:
    sqs.add_response(
        "get_queue_attributes",
        {"Attributes": {} if text is None else {"RedrivePolicy": text}},
        {"QueueUrl": QUEUE_URL, "AttributeNames": ["RedrivePolicy"]},
    )


def lose_dead_letter_queue(sqs: Stubber) -> None:
    answer_policy(sqs, json.dumps(POLICY))
    sqs.add_client_error("get_queue_url", "AWS.SimpleQueueService.NonExistentQueue", "gone", 400)


def test_the_policy_names_the_dead_letter_queue_and_the_limit(
    client: SQSClient, sqs: Stubber
) -> None:
    answer_policy(sqs, json.dumps(POLICY))
    sqs.add_response(
        "get_queue_url",
        {"QueueUrl": DEAD_URL},
        {"QueueName": "images-dead", "QueueOwnerAWSAccountId": "123456789012"},
    )

    assert read_redrive_policy(QueueClient(client, QUEUE_URL)) == RedrivePolicy(DEAD_URL, 5)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("KmsAccessDenied", "KMS key"),
        ("KMS.AccessDeniedException", "KMS key"),
        ("KMS.DisabledException", "KMS key"),
        ("AccessDeniedException", "policy must allow this action"),
        ("AccessDenied", "policy must allow this action"),
    ],
)
def test_a_denial_says_what_must_allow_it(
    client: SQSClient, sqs: Stubber, code: str, advice: str
) -> None:
    sqs.add_client_error("get_queue_attributes", code, "no", 400)
    with pytest.raises(QueueUnavailable, match=advice):
        read_redrive_policy(QueueClient(client, QUEUE_URL))


@pytest.mark.parametrize("text", [None, "{}", '{"maxReceiveCount": 5}'])
def test_a_queue_without_a_dead_letter_queue_has_no_policy(
    client: SQSClient, sqs: Stubber, text: str | None
) -> None:
    answer_policy(sqs, text)

    assert read_redrive_policy(QueueClient(client, QUEUE_URL)) is None


@pytest.mark.parametrize("text", ["{", "7", '{"deadLetterTargetArn": "x"}'])
def test_an_unreadable_policy_is_shown(client: SQSClient, sqs: Stubber, text: str) -> None:
    answer_policy(sqs, text)

    with pytest.raises(QueueUnavailable) as caught:
        read_redrive_policy(QueueClient(client, QUEUE_URL))
    assert QUEUE_URL in caught.value.message
    assert repr(text) in caught.value.message


def test_a_deleted_dead_letter_queue_is_named_with_advice(client: SQSClient, sqs: Stubber) -> None:
    lose_dead_letter_queue(sqs)

    with pytest.raises(QueueUnavailable) as caught:
        read_redrive_policy(QueueClient(client, QUEUE_URL))
    assert f"{QUEUE_URL}: GetQueueUrl of its dead-letter queue images-dead" in caught.value.message
    assert (
        "create it, correct the queue's redrive policy, or allow sqs:GetQueueUrl"
        in caught.value.message
    )


def test_clearing_the_dead_letters_of_a_deleted_queue_is_an_error_of_ours(
    client: SQSClient, sqs: Stubber
) -> None:
    lose_dead_letter_queue(sqs)

    with pytest.raises(QueueUnavailable, match="images-dead"):
        clear_dead_letters(QueueClient(client, QUEUE_URL), {"j1"})


def test_there_are_no_dead_letters_to_clear_without_their_queue(
    client: SQSClient, sqs: Stubber
) -> None:
    answer_policy(sqs, None)

    with pytest.raises(InvalidConfig, match="no dead-letter queue"):
        clear_dead_letters(QueueClient(client, QUEUE_URL), {"j1"})


def test_a_queue_that_is_its_own_dead_letter_queue_is_refused(
    client: SQSClient, sqs: Stubber
) -> None:
    arn = "arn:aws:sqs:eu-west-1:123456789012:images"
    answer_policy(sqs, json.dumps({"deadLetterTargetArn": arn}))
    with pytest.raises(InvalidConfig, match="is its own dead-letter queue"):
        read_redrive_policy(QueueClient(client, QUEUE_URL))
