"""Jobs submitted over HTTP to a queue and a ledger that nothing else uses."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from ingest.runs.polled_runs import PARTS_PER_REQUEST
from ingest.runs.submissions import SqsJobs
from serve_app.config import AppConfig
from serve_app.errors import SourceNotFound
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore
from tests.support.http_client import StuckPipeline, endpoint_client
from tests.support.image_messages import parse_image_message
from tests.support.running_app import Aws


@pytest.fixture
def config(local_aws: Aws) -> AppConfig:
    url, _ = local_aws.queue()
    return AppConfig.load(
        {
            "aws": {"endpoint_url": local_aws.endpoint_url},
            "queue": {"url": url},
            "ledger": {"bucket": local_aws.bucket()},
        }
    )


def job(number: int, **fields: Any) -> dict[str, Any]:
    return {"source": {"bucket": "b", "key": f"{number}.jpg"}, "output": {"bucket": "b"}, **fields}


def put_part(
    config: AppConfig,
    run_id: str,
    name: str,
    *records: tuple[str, str],
    store: ObjectStore | None = None,
) -> None:
    assert config.ledger is not None
    lines = [
        json.dumps(
            {
                "job_id": job_id,
                "status": status,
                "code": "no_subject" if status == "failed" else None,
                "finished_at": datetime.now(UTC).isoformat(),
            }
        )
        for job_id, status in records
    ]
    key = f"{config.ledger.prefix}runs/{run_id}/results/{name}.jsonl.gz"
    data = gzip.compress("\n".join(lines).encode())
    (store or open_store(config)).put(config.ledger.bucket, key, data, "application/gzip")


async def test_a_job_in_an_sns_envelope_is_refused_and_the_others_are_queued(
    config: AppConfig, local_aws: Aws
) -> None:
    assert config.queue is not None
    envelope = {"TopicArn": "arn:aws:sns:eu-west-1:1:t", "Message": '{"Records": []}'}
    async with endpoint_client(config, StuckPipeline(), SqsJobs(config)) as client:
        answer = await client.post("/v1/jobs", json=[job(1), job(2, **envelope), job(3)])
    assert answer.status_code == 202, answer.text
    reported = [(item["status"], item["code"]) for item in answer.json()["jobs"]]
    assert reported == [("queued", None), ("refused", "invalid_message"), ("queued", None)]
    sqs, url = local_aws.client("sqs"), config.queue.url
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    keys = {json.loads(message["Body"])["source"]["key"] for message in messages}
    assert keys == {"1.jpg", "3.jpg"}


@pytest.mark.slow
async def test_a_thousand_jobs_become_messages_for_the_consumer(
    config: AppConfig, local_aws: Aws
) -> None:
    assert config.queue is not None
    receipts = await SqsJobs(config).submit([job(number) for number in range(1000)])
    assert {receipt.status for receipt in receipts} == {"queued"}
    url, client = config.queue.url, local_aws.client("sqs")
    name = "ApproximateNumberOfMessages"
    attributes = client.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"]
    assert int(attributes[name]) == 1000
    expected = {item.job_id: f"{number}.jpg" for number, item in enumerate(receipts)}
    for message in client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]:
        [read] = parse_image_message(message["Body"], config.queue)
        assert expected[read.job_id] == read.source.key
    [run_id] = {item.run_id or "" for item in receipts}
    counts = await SqsJobs(config).counts(run_id)
    assert (counts.jobs, counts.remaining, counts.complete) == (1000, 1000, True)


async def test_without_the_queue_every_job_is_refused(config: AppConfig) -> None:
    assert config.queue is not None
    gone = config.queue.model_copy(update={"url": config.queue.url + "-gone"})
    jobs = SqsJobs(config.model_copy(update={"queue": gone}))
    receipts = await jobs.submit([job(number) for number in range(12)])
    assert {(item.status, item.code, item.retry) for item in receipts} == {
        ("refused", "queue_unavailable", "transient")
    }
    assert all(item.job_id and item.run_id for item in receipts)


async def test_jobs_with_different_recipes_are_counted_without_a_manifest(
    config: AppConfig,
) -> None:
    jobs = SqsJobs(config)
    receipts = await jobs.submit([job(1), job(2, recipe="mask")])
    [run_id] = {item.run_id or "" for item in receipts}
    with pytest.raises(SourceNotFound):
        await jobs.counts(run_id)
    put_part(config, run_id, "1", ("a", "done"))
    counts = await jobs.counts(run_id)
    assert (counts.jobs, counts.remaining, counts.counts["done"]) == (None, None, 1)


async def test_a_job_with_several_records_counts_once(config: AppConfig) -> None:
    put_part(config, "r", "1", ("a", "failed"), ("b", "skipped_existing"), ("c", "failed"))
    put_part(config, "r", "2", ("a", "done"), ("b", "failed"), ("c", "failed"), ("d", "done"))
    counts = await SqsJobs(config).counts("r")
    assert counts.counts == {"done": 2, "skipped_existing": 1, "failed": 1}
    assert counts.codes == {"no_subject": 1}


async def test_a_long_ledger_is_read_in_steps(config: AppConfig) -> None:
    parts, store = PARTS_PER_REQUEST + 5, open_store(config)
    for number in range(parts):
        put_part(config, "long", f"{number:04}", (str(number), "done"), store=store)
    jobs = SqsJobs(config)
    first = await jobs.counts("long")
    assert (first.counts["done"], first.complete) == (PARTS_PER_REQUEST, False)
    second = await jobs.counts("long")
    assert (second.counts["done"], second.complete) == (parts, True)
