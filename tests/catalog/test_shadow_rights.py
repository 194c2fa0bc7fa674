"""The rights that docs/cut-over.md gives for the shadow run are all that it needs.

AWS is moto with policies that count (tests/deployment/iam).
"""

from __future__ import annotations

import json
import re

import pytest

from ingest.smoke.doctor import examine_places
from serve_app.config import AppConfig
from tests.catalog.reader import ROOT
from tests.deployment.iam.account import LEDGER, OTHER, REGION, Account
from tests.deployment.iam.grants import Grant, grants_of
from tests.deployment.iam.server import Server

SHADOW = "foreedge-shadow"
PAGE = ROOT / "docs" / "cut-over.md"
OWN = (
    Grant("RecordOutcomes", "s3:GetObject", f"arn:aws:s3:::{LEDGER}/*"),
    Grant("RecordOutcomes", "s3:PutObject", f"arn:aws:s3:::{LEDGER}/*"),
    Grant("FindObjects", "s3:ListBucket", f"arn:aws:s3:::{LEDGER}"),
    # moto knows no rights of whoever began an upload.
    Grant("Check", "s3:AbortMultipartUpload", f"arn:aws:s3:::{OTHER}/*"),
)
"""Rights that the role has already, as far as a run needs them."""


def given(queue_arn: str, bucket: str) -> list[Grant]:
    """Return the rights in the policy of the page."""
    [text] = re.findall(r"cat > shadow\.json <<END\n(.*?)^END$", PAGE.read_text(), re.S | re.M)
    policy = text.replace("$SHADOW_ARN", queue_arn).replace("$SHADOW_BUCKET", bucket)
    return grants_of(json.loads(policy))


def test_the_rights_of_the_shadow_run_suffice_and_none_is_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Server() as server:
        account = Account(server)
        sqs, names = account.client("sqs"), ["QueueArn"]
        dead = sqs.create_queue(QueueName=f"{SHADOW}-dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=names)["Attributes"][
            "QueueArn"
        ]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 5})
        url = sqs.create_queue(QueueName=SHADOW, Attributes={"RedrivePolicy": policy})["QueueUrl"]
        for name, value in account.credentials("worker").items():
            monkeypatch.setenv(name, value)
        config = AppConfig.load(
            {
                "aws": {"endpoint_url": account.endpoint_url, "region": REGION},
                "queue": {"url": url, "output_bucket": OTHER, "output_prefix": "shadow/"},
                "ledger": {"bucket": LEDGER},
            }
        )
        grants = given(arn.removesuffix("-dead"), OTHER)
        account.allow("worker", [*OWN, *grants])
        assert [each for each in examine_places(config) if each.problem is not None] == []
        for missing in grants:
            account.allow("worker", [*OWN, *(each for each in grants if each != missing)])
            assert [each for each in examine_places(config) if each.problem is not None], missing
