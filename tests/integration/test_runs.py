"""Runs from their start to their repair, with the real command line and a real queue."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingest.runs.folder import RunFolder
from ingest.runs.ledger import read_outcomes
from ingest.runs.redrive import clear_dead_letters
from ingest.sqs.queue_client import QueueClient
from serve_app.errors import SourceNotFound
from serve_app.storage.s3 import S3Store
from tests.support.images import book, jpeg
from tests.support.running_app import App, Aws

FOREEDGE = str(Path(sys.executable).with_name("foreedge"))
_INTERRUPTED = 130


class Shop:
    """A bucket, a queue that no application serves, and the command line."""

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self.bucket = aws.bucket()
        self.queue_url, self.dead_url = aws.queue()
        self.s3, self.sqs = aws.client("s3"), aws.client("sqs")

    def put(self, *keys: str) -> None:
        for key in keys:
            self.s3.put_object(Bucket=self.bucket, Key=key, Body=b"x")

    def start(self, *arguments: str, out: int = subprocess.PIPE) -> subprocess.Popen[str]:
        flags = ["--endpoint-url", self.aws.endpoint_url]
        flags += ["--queue", self.queue_url, "--ledger-bucket", self.bucket]
        environment = os.environ | {"COLUMNS": "200"}
        return subprocess.Popen(
            [FOREEDGE, *arguments, *flags],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=_accept_interrupts,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command, and return its exit code, output and errors."""
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=120)
        return process.returncode, out, errors

    def drain(self) -> list[dict[str, Any]]:
        """Take every message from the queue."""
        found = []
        while messages := self.sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=10
        ).get("Messages"):
            found += [json.loads(message["Body"]) for message in messages]
            entries: list[Any] = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(messages)
            ]
            self.sqs.delete_message_batch(QueueUrl=self.queue_url, Entries=entries)
        return found

    def waiting(self) -> int:
        names: Any = ["ApproximateNumberOfMessages"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)
        return int(found["Attributes"]["ApproximateNumberOfMessages"])


@pytest.fixture
def shop(local_aws: Aws) -> Shop:
    return Shop(local_aws)


def _accept_interrupts() -> None:
    # A shell makes the processes that it starts in the background ignore interrupts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until_sent(shop: Shop, messages: int) -> None:
    for _ in range(600):
        if shop.waiting() >= messages:
            return
        time.sleep(0.05)
    raise AssertionError(f"{shop.waiting()} messages are on the queue")


def manifest(path: Path, bucket: str, count: int) -> list[str]:
    keys = [f"in/{n:04d}.jpg" for n in range(count)]
    path.write_text("bucket,key\n" + "".join(f"{bucket},{key}\n" for key in keys))
    return keys


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_resumes(shop: Shop, tmp_path: Path, end: int) -> None:
    path = tmp_path / "m.csv"
    keys = manifest(path, shop.bucket, 150)
    command = ("bulk", str(path), "--run-id", "r1")

    process = shop.start(*command, "--rate", "60")
    until_sent(shop, 40)
    process.send_signal(end)
    out, _ = process.communicate(timeout=60)

    assert process.returncode == _INTERRUPTED
    assert "Nothing is lost" in out
    assert "foreedge bulk" in out
    assert "--run-id r1" in out
    sent = shop.waiting()
    assert 40 <= sent < 150

    code, out, errors = shop.run(*command)

    assert (code, errors) == (0, "")
    assert f"Resuming after {sent} messages" in out
    messages = shop.drain()
    assert sorted(m["source"]["key"] for m in messages) == keys
    assert len({m["job_id"] for m in messages}) == 150
    code, out, _ = shop.run(*command)
    assert (code, shop.waiting()) == (0, 0)
    assert "was already sent" in out


@pytest.mark.slow
def test_a_queue_that_is_deleted_in_the_middle(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    keys = manifest(path, shop.bucket, 150)
    process = shop.start("bulk", str(path), "--run-id", "r1", "--rate", "100")
    until_sent(shop, 40)
    shop.sqs.delete_queue(QueueUrl=shop.queue_url)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 4
    assert "queue_unavailable" in errors
    assert "create it" in errors
    assert "--run-id r1" in errors

    shop.queue_url, _ = shop.aws.queue()
    assert shop.run("bulk", str(path), "--run-id", "r1")[0] == 0

    rest = {m["source"]["key"] for m in shop.drain()}
    assert 0 < len(rest) < 150
    code, out, _ = shop.run("verify", "r1", "--enqueue-missing")
    # What was on the queue that is gone is known to be missing.
    assert code == 1
    assert "Jobs without an outcome: 150" in out
    assert sorted(m["source"]["key"] for m in shop.drain()) == keys


def test_an_inventory_in_s3(shop: Shop) -> None:
    keys = ["in/a b+c.jpg", "in/über.png", "in/plain.webp"]
    rows = [
        f'"{shop.bucket}","{key}","true","false","1"'
        for key in ["in/a+b%2Bc.jpg", "in/%C3%BCber.png", "in/notes.txt", "in/", "cutouts/x/1.png"]
    ]
    rows += [f'"{shop.bucket}","in/old.jpg","false","false","1"']
    rows += [f'"{shop.bucket}","in/gone.jpg","true","true",""']
    files = {
        "inv/data/1.csv.gz": gzip.compress("\n".join(rows).encode() + b"\n"),
        "inv/data/2.csv.gz": gzip.compress(
            f'"{shop.bucket}","in/plain.webp","true","false","1"\n'.encode()
        ),
    }
    content = {
        "sourceBucket": shop.bucket,
        "destinationBucket": f"arn:aws:s3:::{shop.bucket}",
        "version": "2016-11-30",
        "creationTimestamp": "1514944800000",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, IsLatest, IsDeleteMarker, Size",
        "files": [
            {"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()}
            for key, data in files.items()
        ],
    }
    for key, data in files.items():
        shop.s3.put_object(Bucket=shop.bucket, Key=key, Body=data)
    place = {"Bucket": shop.bucket, "Key": "inv/2026-01-01T00-00Z/manifest.json"}
    shop.s3.put_object(**place, Body=json.dumps(content).encode())

    code, out, errors = shop.run("bulk", f"s3://{shop.bucket}/{place['Key']}")

    assert (code, errors) == (0, "")
    assert "Messages sent: 3" in out
    assert sorted(m["source"]["key"] for m in shop.drain()) == sorted(keys)


def test_listings_and_chunks_of_s3(shop: Shop) -> None:
    store = S3Store(shop.s3)
    shop.put("in/a.jpg", "in/b c.jpg", "in/ü.jpg", "other.jpg")
    shop.s3.put_object(Bucket=shop.bucket, Key="large", Body=bytes(2_500_000))

    assert list(store.keys(shop.bucket, "in/")) == ["in/a.jpg", "in/b c.jpg", "in/ü.jpg"]
    assert list(store.keys(shop.bucket, "in/", "in/a.jpg")) == ["in/b c.jpg", "in/ü.jpg"]
    assert [item.key for item in store.list(shop.bucket, "in/", "in/b c.jpg")] == ["in/ü.jpg"]
    assert [len(chunk) for chunk in store.chunks(shop.bucket, "large")] == [
        1024 * 1024,
        1024 * 1024,
        2_500_000 - 2 * 1024 * 1024,
    ]
    with pytest.raises(SourceNotFound):
        list(store.chunks(shop.bucket, "none"))


def test_dead_letters_of_redriven_jobs_are_cleared(shop: Shop) -> None:
    for name in ("ours", "theirs", "again"):
        body = json.dumps({"job_id": name})
        shop.sqs.send_message(QueueUrl=shop.dead_url, MessageBody=body)
    shop.sqs.send_message(QueueUrl=shop.dead_url, MessageBody="poison")

    assert clear_dead_letters(QueueClient(shop.sqs, shop.queue_url), {"ours", "again"}) == 2

    left = shop.sqs.receive_message(QueueUrl=shop.dead_url, MaxNumberOfMessages=10)["Messages"]
    assert {message["Body"] for message in left} == {'{"job_id": "theirs"}', "poison"}


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["status", "r9"], 2, "source_not_found: no run 'r9'"),
        (["errors", "r9"], 2, "source_not_found: no run 'r9'"),
        (["redrive", "r9"], 2, "source_not_found: no run 'r9'"),
        (["verify", "r9"], 2, "source_not_found: no run 'r9'"),
        (["bulk", "s3://{bucket}/nothing/"], 2, "no images there"),
        (["bulk", "s3://no-such-bucket/"], 2, "source_not_found: s3://no-such-bucket/"),
        (["bulk", "s3://{bucket}/nothing/manifest.json"], 2, "source_not_found"),
    ],
)
def test_mistakes_are_reported_in_one_line(
    shop: Shop, arguments: list[str], code: int, expected: str
) -> None:
    found, _, errors = shop.run(*(word.format(bucket=shop.bucket) for word in arguments))
    assert found == code
    assert errors.startswith("error: ")
    assert expected in errors
    assert errors.count("\n") == 1


def test_from_failures_to_a_sound_run(app: App, local_aws: Aws, tmp_path: Path) -> None:
    """Errors, redrive, a lost object, verify: with the application that serves the queue."""
    shop = Shop(local_aws)
    shop.bucket, shop.queue_url, shop.dead_url = app.bucket, app.queue.url, app.dead_url
    good = jpeg(book().image)
    entries = app.put({"1.jpg": good, "2.jpg": good, "bad.jpg": b"not an image", "3.jpg": good})
    prefix = entries[0].key.rpartition("/")[0] + "/"
    recipe = json.dumps({"checks": {"min_subject_px": 1}})
    source = f"s3://{app.bucket}/{prefix}"
    code, out, _ = shop.run("bulk", source, "--recipe", recipe, "--run-id", "sound", "--wait")
    assert code == 1, out
    assert "unsupported_format: 1" in out

    code, out, _ = shop.run("errors", "sound", "--code", "unsupported_format", "--csv", "-")
    [row] = csv.DictReader(io.StringIO(out))
    assert (code, row["source"]) == (0, f"{source}bad.jpg")
    assert shop.run("errors", "sound", "--code", "no_subject")[1].startswith("0 failed jobs")

    # The image is fixed. Its job named the ETag of the bad one, so the redrive must drop it.
    app.store.put(app.bucket, f"{prefix}bad.jpg", good, "image/jpeg")
    code, out, _ = shop.run("redrive", "sound", "--as-they-are-now", "--clear-dead-letters")
    assert code == 0
    assert "Failed jobs sent again: 1" in out
    assert "1 dead letters" in out
    assert "Failed jobs sent again: 0" in shop.run("redrive", "sound")[1]
    code, out, _ = shop.run("status", "sound", "--watch")
    assert code == 0, out
    assert "4 of 4 images have a result" in out
    code, out, _ = shop.run("verify", "sound")
    assert code == 0, out
    assert "Nothing is missing" in out

    outcomes = [o for o in read_outcomes(RunFolder(app.store, app.ledger, "sound")) if o.output_key]
    lost = outcomes[0]
    assert lost.output_key
    local_aws.client("s3").delete_object(Bucket=app.bucket, Key=lost.output_key)
    code, out, _ = shop.run("verify", "sound", "--enqueue-missing", "--force")
    assert code == 1
    assert "Jobs without their object: 1" in out
    assert lost.source is not None
    assert lost.source.key in out
    for _ in range(300):
        if app.store.head(app.bucket, lost.output_key) is not None:
            break
        time.sleep(0.1)
    assert shop.run("verify", "sound")[0] == 0
    assert app.dead_letters() == []
    code, _, _ = shop.run("report", "sound", "--out", str(tmp_path))
    jobs = json.loads((tmp_path / "report.json").read_bytes())["jobs"]
    assert Counter(job["status"] for job in jobs) == {"done": 4}


def test_what_is_in_flight_is_shown(shop: Shop, tmp_path: Path) -> None:
    manifest(tmp_path / "m.csv", shop.bucket, 12)
    shop.run("bulk", str(tmp_path / "m.csv"), "--run-id", "r1")
    shop.sqs.receive_message(QueueUrl=shop.queue_url, MaxNumberOfMessages=10)

    code, out, _ = shop.run("status", "r1")

    assert code == 0
    assert "0 of 12 images have a result, 12 remain" in out
    assert "2 waiting, 10 in flight" in out
    data = json.loads(shop.run("status", "r1", "--json")[1])
    assert data["queue"] == {"waiting": 2, "in_flight": 10}
