"""How a command that waits for a run ends, and how one ends whose output cannot be written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

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
