"""The way from the old worker to Foreedge and back, by the commands of docs/cut-over.md alone.

The application, its tables, Foreedge and Ray are real. AWS is a local one (moto), and the function
that Foreedge replaces is the model of the old worker, which works if its event source is enabled.
"""

from __future__ import annotations

import io
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from zipfile import ZipFile

import boto3
import pytest

from ingest.local.aws import LocalAws, use_dummy_credentials
from serve_app.contracts.job import CatalogJob
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, photographs
from tests.catalog.old_worker import OldWorker
from tests.catalog.reader import REGION, ROOT, clone, environment_of
from tests.catalog.test_deployment import upload_book
from tests.catalog.test_shadow import digest
from tests.support.pages import Shell, blocks, section

PAGE = ROOT / "docs" / "cut-over.md"
FUNCTION = "collection-image-processor"
PATIENCE_S = 300.0


class Function:
    """The function of the old worker, and the event source by which it gets messages."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.worker = OldWorker(bench.collection.url, bench.store, bench.bucket)
        endpoint_url = bench.aws.endpoint_url
        # moto would run functions in Docker.
        urllib.request.urlopen(
            urllib.request.Request(
                f"{endpoint_url}/moto-api/config",
                data=json.dumps({"lambda": {"use_docker": False}}).encode(),
                headers={"Content-Type": "application/json"},
            )
        ).close()
        iam, self._client = (
            boto3.client(name, REGION, endpoint_url=endpoint_url) for name in ("iam", "lambda")
        )
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        role = iam.create_role(RoleName=FUNCTION, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
        self._client.create_function(
            FunctionName=FUNCTION,
            Runtime="python3.12",
            Role=role,
            Handler="worker.handle",
            Code={"ZipFile": empty_archive()},
        )
        source = bench.sqs.get_queue_attributes(QueueUrl=bench.url, AttributeNames=["QueueArn"])
        arn = source["Attributes"]["QueueArn"]
        mapping = self._client.create_event_source_mapping(
            FunctionName=FUNCTION, EventSourceArn=arn, BatchSize=1
        )
        self._mapping = mapping["UUID"]

    @property
    def enabled(self) -> bool:
        found = self._client.get_event_source_mapping(UUID=self._mapping)
        return bool(found["State"] == "Enabled")

    def serve(self) -> None:
        """Serve the queue until it is empty, as Lambda would."""
        assert self.enabled
        bench = self._bench
        while bench.has_messages():
            answer = bench.sqs.receive_message(QueueUrl=bench.url, VisibilityTimeout=5)
            for message in answer.get("Messages", []):
                if self.worker.deliver(CatalogJob.model_validate_json(message["Body"])):
                    receipt = message["ReceiptHandle"]
                    bench.sqs.delete_message(QueueUrl=bench.url, ReceiptHandle=receipt)


def empty_archive() -> bytes:
    file = io.BytesIO()
    with ZipFile(file, "w") as archive:
        archive.writestr("worker.py", "")
    return file.getvalue()


class Application:
    """The application, whose users add books and queue their images all the time."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.books: list[int] = []

    def queue(self, number: int) -> list[CatalogJob]:
        """Add books with two images, and queue the first image of each."""
        jobs = []
        for _ in range(number):
            book, [image, _] = self._bench.collection.add_book(*photographs(2))
            upload_book(self._bench, book)
            for row in self._bench.collection.images(book):
                self._bench.upload_original(f"books/thumb_{row['s3_key']}")
            jobs.append(self._bench.collection.queue(book, image))
            self.books.append(book)
        return jobs

    def states(self) -> dict[str, int]:
        query = "SELECT status, count(*) FROM image_processing_jobs GROUP BY status"
        return {row["status"]: row["count"] for row in self._bench.collection.rows(query)}


def wait_until(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < until, "it was not reached"
        time.sleep(0.2)


def kinds(file: Path) -> set[str]:
    """Return the kinds of problems that ``catalog verify --json`` has written."""
    return {
        each["kind"] for each in map(json.loads, file.read_text().splitlines()) if "kind" in each
    }


@pytest.fixture
def own_aws() -> Iterator[LocalAws]:
    """Yield an AWS in which functions need no Docker."""
    use_dummy_credentials()
    with LocalAws() as server:
        yield server


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_over_and_back(own_aws: LocalAws, collection: Collection, tmp_path: Path) -> None:
    bench = Bench(own_aws, collection)
    function, application = Function(bench), Application(bench)
    for job in application.queue(3):
        # Before Foreedge is there. moto acknowledges a message at once, and runs nothing.
        bench.send(job)
        assert function.worker.deliver(job)
    own_aws.create_bucket("shadow")
    settings = {
        "models": ["folio"],
        "aws": {"endpoint_url": own_aws.endpoint_url},
        "queue": {"url": bench.url, "max_in_flight": 4},
        "ledger": {"bucket": bench.bucket},
        "catalog": {"database_url": collection.url, "images_bucket": bench.bucket},
    }
    (tmp_path / "settings.yaml").write_text(json.dumps(settings))
    iam = boto3.client("iam", REGION, endpoint_url=own_aws.endpoint_url)
    iam.create_role(RoleName="consumers", AssumeRolePolicyDocument="{}")
    names = {
        "WORKER_ROLE": "consumers",
        "IMAGES_BUCKET": bench.bucket,
        "FUNCTION": FUNCTION,
        "QUEUE_URL": bench.url,
        "SHADOW_QUEUE": own_aws.create_queue("shadow"),
        "SHADOW_BUCKET": "shadow",
    }
    with Shell(clone(tmp_path), environment_of(tmp_path, own_aws) | names) as shell:

        def follow(title: str) -> str:
            return "".join(shell.run(block) for block in blocks(section(PAGE, title), "sh"))

        before = digest(bench, collection)
        assert "3 results compared" in follow("1. Shadow")
        assert digest(bench, collection) == before
        assert iam.list_role_policies(RoleName="consumers")["PolicyNames"] == []
        assert not bench.sqs.list_queues(QueueNamePrefix="shadow").get("QueueUrls")
        assert "FAILED" not in follow("2. Check")
        assert follow("3. Stop the old worker").splitlines()[-2:] == ["Disabled", "0"]
        assert not function.enabled
        bench.send(*application.queue(3))
        follow("4. Start")
        wait_until(lambda: application.states() == {"completed": 6} and not bench.has_messages())
        watched = follow("5. Watch").splitlines()
        # The three jobs that Foreedge was sent, and not those that the old worker has done.
        [results] = [line for line in watched if "a result" in line]
        assert re.fullmatch(r"3 images have a result \(live-\S+, UTC\)", results)
        assert {"  done     3", "0 failed jobs"} <= set(watched)
        assert kinds(tmp_path / "after.jsonl") <= kinds(tmp_path / "before.jsonl")
        # Some are under way when Foreedge is stopped, and some wait.
        bench.send(*application.queue(40))
        wait_until(lambda: application.states().get("completed", 0) > 8)
        follow("6. Roll back")
    assert application.states().keys() == {"completed", "pending"}
    assert function.enabled
    function.serve()
    assert application.states() == {"completed": 46}
    for book in application.books:
        assert len(collection.order(book)) == 3
