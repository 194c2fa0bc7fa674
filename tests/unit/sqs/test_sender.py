"""Messages are sent in batches, and those that SQS fails to take are sent again."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from botocore.stub import Stubber
from mypy_boto3_sqs import SQSClient

from ingest.sqs.limits import PAYLOAD_BYTES
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.sender import RateLimiter, batches, send_batch, send_messages
from serve_app.errors import QueueUnavailable

QUEUE_URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/images"


@pytest.fixture
def queue(client: SQSClient) -> QueueClient:
    return QueueClient(client, QUEUE_URL)


@pytest.fixture
def expect(sqs: Stubber) -> Callable[..., None]:
    """Expect a call with these messages; the entries in ``failed`` fail through a fault."""

    def expect(bodies: dict[int, str], failed: dict[int, str] | None = None) -> None:
        answer: dict[str, Any] = {
            "Successful": [
                {"Id": str(index), "MessageId": "m", "MD5OfMessageBody": "d"}
                for index in bodies
                if index not in (failed or {})
            ],
            "Failed": [
                {"Id": str(index), "SenderFault": fault == "sender", "Code": fault}
                for index, fault in (failed or {}).items()
            ],
        }
        entries = [{"Id": str(index), "MessageBody": body} for index, body in bodies.items()]
        call = {"QueueUrl": QUEUE_URL, "Entries": entries}
        sqs.add_response("send_message_batch", answer, call)

    return expect


def test_entries_that_failed_are_sent_again_alone(
    queue: QueueClient, expect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    expect({0: "a", 1: "b", 2: "c"}, failed={1: "server", 2: "server"})
    expect({1: "b", 2: "c"}, failed={2: "server"})
    expect({2: "c"})
    pauses: list[float] = []

    assert send_batch(queue, ["a", "b", "c"], sleep=pauses.append) == [None, None, None]
    assert pauses == [0.5, 1.0]


def test_a_refused_message_is_not_sent_again_and_its_neighbours_are(
    queue: QueueClient, expect: Callable[..., None]
) -> None:
    expect({0: "a", 1: "b", 2: "c"}, failed={0: "sender", 1: "server"})
    expect({1: "b"})

    refused, *others = send_batch(queue, ["a", "b", "c"], sleep=lambda _: None)

    assert others == [None, None]
    assert refused is not None
    assert refused.message == f"{QUEUE_URL} refused a message: sender: "


@pytest.mark.parametrize("attempts", [1, 2, 6])
def test_attempts_are_bounded(
    queue: QueueClient, expect: Callable[..., None], attempts: int
) -> None:
    for _ in range(attempts):
        expect({0: "a"}, failed={0: "server"})

    [error] = send_batch(queue, ["a"], attempts=attempts, sleep=lambda _: None)

    assert error is not None


def test_a_call_that_fails_is_the_error_of_every_message_it_had(
    queue: QueueClient, sqs: Stubber, expect: Callable[..., None]
) -> None:
    expect({0: "a", 1: "b", 2: "c"}, failed={0: "server", 2: "server"})
    sqs.add_client_error("send_message_batch", "AccessDenied", "no", 403)

    first, second, third = send_batch(queue, ["a", "b", "c"], sleep=lambda _: None)

    assert second is None
    assert first is not None
    assert first is third
    # IAM has no action for batches, and the text says what a policy must allow.
    assert first.message.startswith(f"{queue.url}: SendMessage: ")
    assert "the role's policy must allow this action" in first.message


@pytest.mark.parametrize(("fault", "calls"), [("sender", 1), ("server", 6)])
def test_sending_ends_with_a_message_that_is_never_accepted(
    queue: QueueClient, expect: Callable[..., None], fault: str, calls: int
) -> None:
    for _ in range(calls):
        expect({0: "a"}, failed={0: fault})
    sent: list[int] = []

    with pytest.raises(QueueUnavailable, match=fault):
        send_messages(queue, ["a"], sent.append, sleep=lambda _: None)
    assert sent == []


def test_batches_obey_both_limits() -> None:
    small = list(batches(str(number) for number in range(21)))
    large = list(batches("ä" * 250_000 for _ in range(5)))

    assert [len(batch) for batch in small] == [10, 10, 1]
    assert [len(batch) for batch in large] == [2, 2, 1]
    assert list(batches([])) == []
    assert list(batches(["x" * PAYLOAD_BYTES, "y"])) == [["x" * PAYLOAD_BYTES], ["y"]]


def test_a_rate_holds_at_every_moment() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    limiter = RateLimiter(20, sleep, lambda: now[0])
    for _ in range(3):
        limiter.wait(10)
    assert slept == [0.5, 0.5]
    # Unused capacity is not carried over.
    now[0] += 60
    limiter.wait(10)
    limiter.wait(10)
    assert slept == [0.5, 0.5, 0.5]
