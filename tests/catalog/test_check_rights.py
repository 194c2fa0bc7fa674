"""Each right of a consumer of catalog jobs is taken away once, and the check names it.

AWS is moto with policies that count (tests/deployment/iam).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest.smoke.doctor import examine_places
from serve_app.config import AppConfig
from tests.catalog.collection import Collection, photographs
from tests.deployment.iam.account import IMAGES, LEDGER, QUEUE, REGION, Account
from tests.deployment.iam.grants import Grant
from tests.deployment.iam.server import Server

SQS = f"arn:aws:sqs:{REGION}:123456789012:{QUEUE}"
RIGHTS = (
    ("sqs:ReceiveMessage", SQS),
    ("sqs:DeleteMessage", SQS),
    ("sqs:ChangeMessageVisibility", SQS),
    ("sqs:GetQueueAttributes", SQS),
    ("sqs:SendMessage", SQS),
    ("sqs:GetQueueUrl", f"{SQS}-dead"),
    ("sqs:SendMessage", f"{SQS}-dead"),
    ("s3:ListBucket", f"arn:aws:s3:::{IMAGES}"),
    ("s3:GetObject", f"arn:aws:s3:::{IMAGES}/books/*"),
    ("s3:PutObject", f"arn:aws:s3:::{IMAGES}/books/*"),
    ("s3:AbortMultipartUpload", f"arn:aws:s3:::{IMAGES}/books/*"),
    ("s3:ListBucket", f"arn:aws:s3:::{LEDGER}"),
    ("s3:GetObject", f"arn:aws:s3:::{LEDGER}/*"),
    ("s3:PutObject", f"arn:aws:s3:::{LEDGER}/*"),
)
"""Actions that the check needs, with their resources. moto knows no rights of whoever began an
upload, so that the right to abort it is one of them."""


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with Server() as server:
        yield Account(server)


@pytest.fixture
def config(account: Account, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> AppConfig:
    """Return settings with a book whose image exists, and become the worker."""
    book, _ = collection.add_book(*photographs(1))
    [image] = collection.images(book)
    account.client("s3").put_object(Bucket=IMAGES, Key=f"books/{image['s3_key']}", Body=b"x")
    for name, value in account.credentials("worker").items():
        monkeypatch.setenv(name, value)
    return AppConfig.load(
        {
            "aws": {"endpoint_url": account.endpoint_url, "region": REGION},
            "queue": {"url": account.queue_url},
            "ledger": {"bucket": LEDGER},
            "catalog": {"database_url": collection.url, "images_bucket": IMAGES},
        }
    )


def test_each_missing_right_is_named(account: Account, config: AppConfig) -> None:
    grants = [Grant("Catalog", *right) for right in RIGHTS]
    account.allow("worker", grants)
    assert [each for each in examine_places(config) if each.problem is not None] == []
    for missing in grants:
        account.allow("worker", [grant for grant in grants if grant != missing])
        found = [each for each in examine_places(config) if each.problem is not None]
        texts = [f"{each.check}: {each.problem}" for each in found]
        action, place = missing.action.partition(":")[2], missing.resource.rpartition(":")[2]
        named = [text for text in texts if action in text and place.rstrip("/*") in text]
        assert named, (str(missing), texts)
        assert "123456789012:user" not in " ".join(texts)
