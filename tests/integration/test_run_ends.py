"""How commands about runs end, and what they do to a ledger in S3."""

from __future__ import annotations

import json
import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from ingest.runs.folder import RunFolder
from serve_app.config import LedgerConfig
from serve_app.storage.s3 import S3Store
from tests.integration.test_runs import Shop, manifest
from tests.support.running_app import Aws


@pytest.fixture
def shop(local_aws: Aws) -> Shop:
    return Shop(local_aws)


def test_a_run_whose_messages_are_gone_ends_as_stalled(shop: Shop, tmp_path: Path) -> None:
    manifest(tmp_path / "m.csv", shop.bucket, 12)
    shop.run("bulk", str(tmp_path / "m.csv"), "--run-id", "r1")
    shop.drain()

    watch = ("status", "r1", "--watch", "--stalled-after", "2s")
    code, out, _ = shop.run(*watch)
    assert code == 3
    assert "Stalled: the queue is empty" in out
    code, out, _ = shop.run(*watch, "--json")
    assert code == 3
    assert json.loads(out.splitlines()[-1])["state"] == "stalled"

    shop.sqs.delete_queue(QueueUrl=shop.queue_url)
    code, _, errors = shop.run(*watch)
    assert code == 4
    assert errors.startswith("error: queue_unavailable: ")


def test_a_reader_that_ends_is_no_error(shop: Shop, tmp_path: Path) -> None:
    manifest(tmp_path / "m.csv", shop.bucket, 3)
    shop.run("bulk", str(tmp_path / "m.csv"), "--run-id", "r1")
    commands = (["verify", "r1", "--csv", "-"], ["status", "r1"], ["status", "r1", "--json"])
    for arguments in commands:
        reader, writer = os.pipe()
        os.close(reader)
        process = shop.start(*arguments, out=writer)
        os.close(writer)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 141, errors
        assert "Broken" not in errors
        assert "Traceback" not in errors
    if Path("/dev/full").exists():
        with Path("/dev/full").open("wb") as full:
            process = shop.start("status", "r1", "--json", out=full.fileno())
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert (
            errors
            == "error: invalid_config: the output cannot be written: No space left on device\n"
        )


def test_runs_are_listed_cancelled_compacted_and_pruned_in_s3(shop: Shop, tmp_path: Path) -> None:
    keys = manifest(tmp_path / "m.csv", shop.bucket, 3)
    send = ("bulk", str(tmp_path / "m.csv"), "--run-id", "r1")
    shop.run(*send)
    [state] = [json.loads(line)["state"] for line in shop.run("runs", "--json")[1].splitlines()]
    assert state == "running"
    assert shop.run("cancel", "r1")[0] == 0
    assert json.loads(shop.run("status", "r1", "--json")[1])["cancelled"]
    assert "is not cancelled any more" in shop.run(*send)[1]

    folder = RunFolder(S3Store(shop.s3), LedgerConfig(bucket=shop.bucket, part_records=1), "r1")
    for message in shop.drain():
        at = datetime.now(UTC).isoformat()
        record = {"job_id": message["job_id"], "status": "failed", "finished_at": at}
        folder.write_part(folder.new_part_key("results", uuid.uuid4().hex), [orjson.dumps(record)])
    assert len(keys) == len(list(folder.part_keys("results"))) == 3
    code, out, _ = shop.run("runs", "--compact")
    assert (code, len(list(folder.part_keys("results")))) == (0, 1)
    assert "1 object with results, 3 before" in out
    assert shop.run("status", "r1", "--watch")[0] == 1
    time.sleep(1)
    code, out, _ = shop.run("runs", "--prune", "1s", "--yes", "--json")
    assert (code, json.loads(out)["deleted"]) == (0, ["r1"])
    assert shop.run("runs", "--json")[1] == ""
