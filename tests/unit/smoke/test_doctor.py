"""What ``foreedge doctor`` finds in an installation without a catalog. SQS and S3 are moto's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.smoke.doctor import examine_places
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from tests.support.fault_effects import refuse
from tests.support.fault_proxy import Proxy

BUCKETS = ("images", "ledger", "results")


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    use_dummy_credentials()
    with LocalAws() as server:
        for bucket in BUCKETS:
            server.create_bucket(bucket)
        server.create_queue("jobs")
        yield server


@pytest.fixture
def proxy(aws: LocalAws) -> Iterator[Proxy]:
    with Proxy(aws.endpoint_url) as opened:
        yield opened


def config_of(proxy: Proxy, **storage: Any) -> AppConfig:
    aws = AppConfig.load({"aws.endpoint_url": proxy.endpoint_url}).aws
    url = aws_client("sqs", aws).get_queue_url(QueueName="jobs")["QueueUrl"]
    return AppConfig.load(
        {
            "aws": {"endpoint_url": proxy.endpoint_url},
            "queue": {"url": url, "output_bucket": "results"},
            "ledger": {"bucket": "ledger"},
            "storage": {"allowed_buckets": BUCKETS, **storage},
        }
    )


def problems(config: AppConfig) -> list[str]:
    return [str(each.problem) for each in examine_places(config) if each.problem is not None]


def test_every_place_is_looked_at(proxy: Proxy) -> None:
    found = list(examine_places(config_of(proxy)))
    assert [each.problem for each in found] == [None] * len(found)
    assert [each.check for each in found] == [
        "queue and dead-letter queue",
        "sqs:ReceiveMessage",
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:SendMessage",
        "sqs:SendMessage",
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "s3:ListBucket",
        "s3:ListBucket",
        "ledger",
    ]
    listed = {each.detail for each in found if each.check == "s3:ListBucket"}
    assert listed == {f"s3://{bucket} can be listed" for bucket in BUCKETS}


def test_an_allowed_bucket_that_is_missing_or_denied_is_named(proxy: Proxy) -> None:
    missing = config_of(proxy, allowed_buckets=[*BUCKETS, "photographs"])
    [problem] = problems(missing)
    assert problem == "s3://photographs does not exist; create it, or correct its name"
    proxy.add("s3:ListObjectsV2", refuse(403, "AccessDenied"), name="images*")
    [problem] = problems(config_of(proxy))
    assert "the role may not s3:ListBucket on s3://images" in problem


def test_the_right_to_send_jobs_is_tried_without_a_catalog(proxy: Proxy) -> None:
    proxy.add("sqs:SendMessageBatch", refuse(400, "AccessDenied"), name="jobs")
    [problem] = problems(config_of(proxy))
    assert "the role may not sqs:SendMessage on " in problem
    assert problem.split(";")[0].endswith("/jobs")
