"""SqsQueue, and a consumer of it, with a server that speaks SQS's protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ingest.consumer.consumer import Consumer
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import Ledger, read_outcomes
from ingest.sqs.backlog import Backlog, read_backlog
from ingest.sqs.queue import SqsQueue
from ingest.sqs.queue_client import QueueClient
from serve_app.config import AwsConfig, LedgerConfig, QueueConfig
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import InvalidConfig, NoSubject, Overloaded, QueueUnavailable
from serve_app.storage.s3 import S3Store


class Sqs:
    """A fresh queue with its dead-letter queue, seen by a producer and by us."""

    def __init__(self, local_aws: Any) -> None:
        self.url, self.dead_url = local_aws.queue()
        self.client = local_aws.client("sqs")
        self.aws = local_aws.aws
        self.config = QueueConfig(url=self.url, long_poll_s=1, visibility_timeout_s=30)

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.client.send_message(QueueUrl=self.url, MessageBody=body)

    def dead(self) -> list[Any]:
        answer = self.client.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return list(answer.get("Messages", []))


@pytest.fixture
def sqs(local_aws: Any) -> Sqs:
    return Sqs(local_aws)


@pytest.fixture
async def queue(sqs: Sqs) -> AsyncIterator[SqsQueue]:
    opened = await SqsQueue.open(sqs.config, sqs.aws)
    yield opened
    await opened.close()


async def test_open_reads_the_redrive_policy(queue: SqsQueue) -> None:
    assert queue.max_receives == 3


async def test_receive_and_delete(sqs: Sqs, queue: SqsQueue) -> None:
    sqs.send("a", "b")
    messages = await queue.receive(10, 1, 30)
    assert sorted(message.body for message in messages) == ["a", "b"]
    assert {message.receive_count for message in messages} == {1}
    assert messages[0].sent_at.year > 2000
    assert read_backlog(QueueClient(sqs.client, sqs.url)) == Backlog(0, 2)
    assert await queue.delete([message.receipt_handle for message in messages]) == set()
    assert read_backlog(QueueClient(sqs.client, sqs.url)) == Backlog(0, 0)
    assert await queue.receive(10, 0, 30) == []


async def test_release_and_receive_again(sqs: Sqs, queue: SqsQueue) -> None:
    sqs.send("a")
    [first] = await queue.receive(1, 1, 30)
    assert await queue.receive(1, 0, 30) == []
    assert await queue.release({first.receipt_handle: 0}) == set()
    [second] = await queue.receive(1, 1, 30)
    assert (second.message_id, second.receive_count) == (first.message_id, 2)
    assert second.receipt_handle != first.receipt_handle


async def test_extend_keeps_a_message_hidden(sqs: Sqs, queue: SqsQueue) -> None:
    sqs.send("a")
    [message] = await queue.receive(1, 1, 1)
    assert await queue.extend([message.receipt_handle], 30.4) == set()
    await asyncio.sleep(1.2)
    assert await queue.receive(1, 0, 30) == []


async def test_failed_entries_are_reported_and_the_others_succeed(
    sqs: Sqs, queue: SqsQueue
) -> None:
    sqs.send("a", "b", "c")
    gone, kept, last = [item.receipt_handle for item in await queue.receive(10, 1, 30)]
    assert await queue.delete([gone]) == set()
    assert await queue.extend([gone, kept, "nonsense"], 30) == {gone, "nonsense"}
    assert await queue.delete([kept, "nonsense", last]) == {"nonsense"}
    assert read_backlog(QueueClient(sqs.client, sqs.url)) == Backlog(0, 0)


async def test_dead_letter_says_why(sqs: Sqs, queue: SqsQueue) -> None:
    sqs.send("ü")
    [message] = await queue.receive(1, 1, 30)
    assert await queue.dead_letter(message, "no_subject", "nothing\x00to \ud800keep", "j1")
    [dead] = sqs.dead()
    assert dead["Body"] == "ü"
    texts = {name: item["StringValue"] for name, item in dead["MessageAttributes"].items()}
    assert texts == {
        "foreedge.code": "no_subject",
        "foreedge.reason": "nothing\ufffdto \ufffdkeep",
        "foreedge.job_id": "j1",
    }


async def test_dead_letter_without_a_reason_or_with_a_long_one(sqs: Sqs, queue: SqsQueue) -> None:
    sqs.send("a")
    [message] = await queue.receive(1, 1, 30)
    assert await queue.dead_letter(message, "no_subject", "")
    assert await queue.dead_letter(message, "no_subject", "long" * 100_000)
    lengths = {
        len(item["MessageAttributes"].get("foreedge.reason", {}).get("StringValue", ""))
        for item in sqs.dead()
    }
    assert lengths == {0, 1_000}


async def test_what_the_producer_attached_reaches_the_dead_letter(
    sqs: Sqs, queue: SqsQueue
) -> None:
    attributes = {
        "tenant": {"DataType": "String", "StringValue": "books"},
        "token": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
    sqs.client.send_message(
        QueueUrl=sqs.url,
        MessageBody="{",
        MessageAttributes=attributes,
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": trace}},
    )
    [message] = await queue.receive(1, 1, 30)
    assert message.trace_header == trace
    assert await queue.dead_letter(message, "invalid_message", "not JSON", "j1")
    answer = sqs.client.receive_message(
        QueueUrl=sqs.dead_url,
        MessageAttributeNames=["All"],
        MessageSystemAttributeNames=["AWSTraceHeader"],
    )
    [dead] = answer["Messages"]
    assert dead["Attributes"]["AWSTraceHeader"] == trace
    carried = dead["MessageAttributes"]
    assert {name: carried[name] for name in attributes} == attributes
    assert carried["foreedge.reason"]["StringValue"] == "not JSON"


async def test_a_queue_that_is_its_own_dead_letter_queue_is_refused(
    local_aws: Any, sqs: Sqs
) -> None:
    arn = sqs.client.get_queue_attributes(QueueUrl=sqs.url, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 3}
    attributes = {"RedrivePolicy": json.dumps(policy)}
    sqs.client.set_queue_attributes(QueueUrl=sqs.url, Attributes=attributes)
    with pytest.raises(InvalidConfig, match="its own dead-letter queue"):
        await SqsQueue.open(sqs.config, sqs.aws)


async def test_a_queue_without_dead_letters(local_aws: Any, sqs: Sqs) -> None:
    url = sqs.client.create_queue(QueueName="without-dead-letters")["QueueUrl"]
    config = QueueConfig(url=url, default_max_receives=7)
    queue = await SqsQueue.open(config, local_aws.aws)
    assert queue.max_receives == 7
    sqs.client.send_message(QueueUrl=url, MessageBody="a")
    [message] = await queue.receive(1, 1, 30)
    assert not await queue.dead_letter(message, "no_subject", "nothing")
    await queue.close()


@pytest.mark.parametrize("url", ["{}-missing", "nonsense"])
async def test_a_queue_that_is_missing(sqs: Sqs, url: str) -> None:
    config = QueueConfig(url=url.format(sqs.url))
    with pytest.raises(QueueUnavailable) as caught:
        await SqsQueue.open(config, sqs.aws)
    assert config.url in caught.value.message
    assert "correct queue.url" in caught.value.message


async def test_a_server_that_is_unavailable(sqs: Sqs) -> None:
    away = AwsConfig(endpoint_url="http://127.0.0.1:9", max_attempts=1)
    with pytest.raises(QueueUnavailable, match="GetQueueAttributes"):
        await SqsQueue.open(sqs.config, away)


async def test_a_fifo_queue_is_refused(sqs: Sqs) -> None:
    with pytest.raises(InvalidConfig, match="FIFO"):
        await SqsQueue.open(QueueConfig(url=f"{sqs.url}.fifo"), sqs.aws)


async def test_a_dead_letter_queue_that_is_missing(sqs: Sqs) -> None:
    sqs.client.delete_queue(QueueUrl=sqs.dead_url)
    with pytest.raises(QueueUnavailable, match="dead-letter queue"):
        await SqsQueue.open(sqs.config, sqs.aws)


async def test_a_queue_that_disappears(sqs: Sqs, queue: SqsQueue) -> None:
    sqs.client.delete_queue(QueueUrl=sqs.url)
    with pytest.raises(QueueUnavailable, match="create it"):
        await queue.receive(1, 0, 30)


async def test_a_consumer_from_message_to_ledger(local_aws: Any, sqs: Sqs, queue: SqsQueue) -> None:
    tries: dict[str, int] = {}

    async def process(job: Job) -> Outcome:
        tries[job.job_id] = tries.get(job.job_id, 0) + 1
        if job.job_id == "empty":
            raise NoSubject("nothing to keep")
        if job.job_id == "later" and tries["later"] == 1:
            raise Overloaded("no room")
        return Outcome(job_id=job.job_id, run_id=job.run_id, status="done", source=job.source)

    def message(job_id: str) -> str:
        source, output = {"bucket": "b", "key": f"{job_id}.jpg"}, {"bucket": "o"}
        fields = {"job_id": job_id, "run_id": "r", "source": source, "output": output}
        return json.dumps(fields)

    store = S3Store(local_aws.client("s3"))
    ledger_config = LedgerConfig(bucket=local_aws.bucket(), part_interval_s=0.2)
    config = sqs.config.model_copy(update={"retry_base_s": 0.1})
    consumer = Consumer(queue, process, Ledger(store, ledger_config), config)
    sqs.send(*(message(f"j{n}") for n in range(25)), message("empty"), message("later"), "{")
    running = asyncio.create_task(consumer.run())
    async with asyncio.timeout(30):
        while consumer.stats.deleted < 28:  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(0.1)
        await consumer.stop()
        await running

    statuses = {
        item.job_id: item.status for item in read_outcomes(RunFolder(store, ledger_config, "r"))
    }
    assert statuses == {f"j{n}": "done" for n in range(25)} | {"empty": "failed", "later": "done"}
    assert [item.code for item in read_outcomes(RunFolder(store, ledger_config, "invalid"))] == [
        "invalid_message"
    ]
    assert read_backlog(QueueClient(sqs.client, sqs.url)) == Backlog(0, 0)
    codes = [item["MessageAttributes"]["foreedge.code"]["StringValue"] for item in sqs.dead()]
    assert sorted(codes) == ["invalid_message", "no_subject"]


async def test_a_server_that_checks_signatures(
    local_aws: Any, sqs: Sqs, monkeypatch: pytest.MonkeyPatch
) -> None:
    iam = local_aws.client("iam")
    iam.create_user(UserName="consumer")
    key = iam.create_access_key(UserName="consumer")["AccessKey"]
    policy = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}],
    }
    arguments = {"UserName": "consumer", "PolicyName": "sqs"}
    iam.put_user_policy(**arguments, PolicyDocument=json.dumps(policy))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    sqs.send("a")
    queue = await SqsQueue.open(sqs.config, sqs.aws)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of somebody else")
    stranger = await SqsQueue.open(sqs.config, sqs.aws)
    try:
        local_aws.check_signatures(True)
        [message] = await queue.receive(1, 1, 30)
        with pytest.raises(QueueUnavailable, match=r"DeleteMessage: .*SignatureDoesNotMatch"):
            await stranger.delete([message.receipt_handle])
        assert await queue.delete([message.receipt_handle]) == set()
    finally:
        local_aws.check_signatures(False)
        await queue.close()
        await stranger.close()
