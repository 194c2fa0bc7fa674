"""Every command of the pages about catalogs and further queues is run, as a reader types it.

PostgreSQL is a real one, and AWS is a local one (moto).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from ingest.local.aws import LocalAws
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, photographs
from tests.catalog.old_worker import OldWorker
from tests.catalog.reader import ROOT, clone, environment_of
from tests.catalog.test_deployment import ingesting, upload_book
from tests.support.pages import Shell, blocks, section, typed
from tests.support.postgres_server import PostgresServer

CATALOG, NEW_QUEUE = (ROOT / "docs" / name for name in ("catalog.md", "new-queue.md"))
NOT_RUN = {
    "pip install": "it is done; tests/integration/test_wheel.py installs the wheel",
    "foreedge models fetch": "weights from the network; tests/integration/test_models_command.py "
    "runs it",
    "aws sqs start-message-move-task": "moto does not know it; its parameters are held against "
    "AWS's model by tests/conventions/test_documented_commands.py",
}
"""Commands that cannot be run here, with the reason."""
OTHER_REGION = "eu-west-1"
"""A region that is not the default of ``aws.region``."""
NAMES = re.compile(r"foreedge( [a-z][a-z-]*)+")
"""Commands in a sentence that only says their name."""


def is_left_out(line: str) -> bool:
    return line.startswith(tuple(NOT_RUN)) or NAMES.fullmatch(line) is not None


@pytest.fixture
def shell(tmp_path: Path, aws: LocalAws) -> Iterator[Shell]:
    with Shell(clone(tmp_path), environment_of(tmp_path, aws)) as opened:
        yield opened


class Installation:
    """A collection with one book in each state, served with the rights of the page alone."""

    def __init__(self, bench: Bench, postgres: PostgresServer, folder: Path) -> None:
        self.bench, self.collection = bench, bench.collection
        self.file = folder / "settings.yaml"
        self._postgres = postgres
        self._database = self.collection.url.rpartition("/")[2]
        consumer, operator = blocks(section(CATALOG, "Rights"), "sql")
        self._grant("foreedge", consumer)
        # "Give them to a role of its own, which has those above as well."
        self._grant("operator", consumer.replace("TO foreedge;", "TO operator;") + operator)
        self.become("foreedge")

    def _grant(self, role: str, statements: str) -> None:
        self.collection.execute(f"CREATE ROLE {role}_{self._database} LOGIN PASSWORD 'secret'")
        self.collection.execute(statements.replace(f"TO {role};", f"TO {role}_{self._database};"))

    def become(self, role: str) -> None:
        """Write the settings of the page, with the login of a role."""
        url = self._postgres.url(self._database, f"{role}_{self._database}", "secret")
        settings = {
            "models": ["folio"],
            "aws": {"endpoint_url": self.bench.aws.endpoint_url},
            "queue": {"url": self.bench.url},
            "ledger": {"bucket": self.bench.bucket},
            "catalog": {"database_url": url, "images_bucket": self.bench.bucket},
        }
        self.file.write_text(json.dumps(settings))

    def add_book(self, status: str | None) -> int:
        """Add a book with an image, and a job that is done or says something else."""
        book, [image] = self.collection.add_book(*photographs(1))
        upload_book(self.bench, book)
        [row] = self.collection.images(book)
        self.bench.upload_original(f"books/thumb_{row['s3_key']}")
        if status is None:
            return book
        done = status == "completed"
        job = self.collection.queue(book, image, "pending" if done else status)
        if done:
            worker = OldWorker(self.collection.url, self.bench.store, self.bench.bucket)
            assert worker.deliver(job)
        return book

    async def consume(self, url: str) -> None:
        """Let a consumer without the catalog serve a queue until it is empty."""

        def wait_until_drained() -> None:
            while self.bench.backlog(url):
                time.sleep(0.1)

        assert self.bench.config.queue is not None
        queue = self.bench.config.queue.model_copy(update={"url": url})
        config = self.bench.config.model_copy(update={"catalog": None, "queue": queue})
        async with ingesting(config, self.bench):
            await asyncio.to_thread(wait_until_drained)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_of_the_page_about_catalogs(
    bench: Bench, collection: Collection, postgres: PostgresServer, shell: Shell, tmp_path: Path
) -> None:
    installation = Installation(bench, postgres, tmp_path)
    bench.aws.create_bucket("shadow")
    shadow_url = bench.aws.create_queue("shadow")
    shell.run(f"export SHADOW_QUEUE={shadow_url}")
    done, taken, without = map(installation.add_book, ("completed", "processing", None))
    printed: dict[str, str] = {}
    for line in typed(CATALOG.read_text("utf-8")):
        if is_left_out(line):
            continue
        # The page says which role queues books, and leaves the id of a run to the reader.
        installation.become("operator" if "catalog enqueue" in line else "foreedge")
        [name] = re.findall(r"^foreedge (?:catalog )?(\w+)", line)
        if name == "compare":
            [run] = re.findall(r"foreedge status (\S+)", printed["bulk"])
            line = line.replace("RUN", run)
        printed[name] = shell.run(line)
        if name == "bulk":
            assert bench.backlog() == 0, "the application's queue has messages of the run"
            asyncio.run(installation.consume(shadow_url))
    assert printed.keys() == {
        "check", "release", "manifest", "bulk", "enqueue", "sweep", "compare", "verify"
    }  # fmt: skip
    assert "FAILED" not in printed["check"]
    assert "folio cut out an image" in printed["check"]
    assert "Released 1 job.\n" in printed["release"]
    assert f"books/{done}_" in (tmp_path / "completed.csv").read_text()
    assert "Books queued: 1\n" in printed["enqueue"]
    assert "Jobs sent: 0\n" in printed["sweep"]
    assert "1 results compared" in printed["compare"]
    assert (tmp_path / "out" / "compare" / "compare.html").exists()
    assert printed["verify"].endswith("Nothing is wrong.\n")
    states = collection.rows("SELECT book_id, status FROM image_processing_jobs ORDER BY book_id")
    assert [tuple(row.values()) for row in states] == [
        (done, "completed"), (taken, "pending"), (without, "pending")
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_commands_of_the_checklist(shell: Shell, aws: LocalAws, tmp_path: Path) -> None:
    def client(service: Any) -> Any:
        return boto3.client(service, OTHER_REGION, endpoint_url=aws.endpoint_url)

    for bucket in ("thumbnails-images", "thumbnails-results"):
        aws.create_bucket(bucket)
    iam, trust = client("iam"), json.dumps({"Version": "2012-10-17", "Statement": []})
    for role in ("thumbnails-worker", "thumbnails-shop"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
    shell.run(f"export AWS_REGION={OTHER_REGION}")
    topic = client("sns").create_topic(Name="people")["TopicArn"]
    shell.run(f"export TOPIC_ARN={topic} FOREEDGE_AWS__ENDPOINT_URL={aws.endpoint_url}")
    shell.run("export FOREEDGE_MODELS='[\"folio\"]'")
    printed = ""
    for block in typed(NEW_QUEUE.read_text("utf-8")):
        lines = [line for line in block.splitlines() if not is_left_out(line)]
        printed += shell.run("\n".join(lines))

    sqs = client("sqs")
    url = sqs.get_queue_url(QueueName="foreedge-thumbnails")["QueueUrl"]
    dead = sqs.get_queue_url(QueueName="foreedge-thumbnails-dead")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert json.loads(attributes["RedrivePolicy"])["maxReceiveCount"] == 5
    assert attributes["VisibilityTimeout"] == "120"
    [kept] = sqs.get_queue_attributes(
        QueueUrl=dead, AttributeNames=["MessageRetentionPeriod"]
    )["Attributes"].values()  # fmt: skip
    assert kept == "1209600"
    for role, policy in (("shop", "producer"), ("worker", "worker")):
        attached = iam.list_attached_role_policies(RoleName=f"thumbnails-{role}")
        [arn] = [each["PolicyArn"] for each in attached["AttachedPolicies"]]
        assert arn.endswith(f":policy/foreedge-thumbnails-{policy}")
        content = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
        statements = json.dumps(content["Document"])
        queue_arn = attributes["QueueArn"]
        assert f'"{queue_arn}"' in statements
        assert not re.search("shelf|production|eu-central-1", statements)
    findings = [json.loads(line) for line in printed.splitlines() if line.startswith('{"ok"')]
    assert {each["ok"] for each in findings} == {True}, findings
    assert findings[-1]["check"] == "models"
    # The message that the page sends has become a cut-out.
    assert re.search(r"results/in/coffee/[0-9a-f]{20}\.png", printed)
    assert attributes["ApproximateNumberOfMessages"] == "0"
    alarms = client("cloudwatch").describe_alarms(AlarmNames=["foreedge-thumbnails-dead"])
    [alarm] = alarms["MetricAlarms"]
    assert (alarm["Threshold"], alarm["AlarmActions"], alarm["OKActions"]) == (0, [topic], [topic])
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": "foreedge-thumbnails-dead"}]
    assert len(sqs.list_queue_tags(QueueUrl=url)["Tags"]["revision"]) == 40


def test_what_is_not_run_is_on_a_page() -> None:
    pages = [page.read_text("utf-8") for page in (CATALOG, NEW_QUEUE)]
    for command in NOT_RUN:
        assert any(command in page for page in pages), command
