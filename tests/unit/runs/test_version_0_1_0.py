"""What version 0.1.0 stored and sent, as both versions work on one queue during an update.

``v0_1_0/`` was written by the code of commit 76ac81d: a run of five images with three parts of
results and one of redriven failures, messages without a run, an unreadable message, the bodies of
the messages, a dead letter, and the fields of each contract, which that version reads strictly.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ingest.runs.cancellation import cancel_run
from ingest.runs.compaction import compact_results
from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList, Sent
from ingest.runs.ledger import read_outcomes
from ingest.runs.manifest import read_manifest
from ingest.runs.redrive import RedriveOptions, redrive_failures
from ingest.runs.send import plan_run, send_run
from ingest.runs.status import RunMonitor
from ingest.runs.verify import Verification
from ingest.sources.base import Entry
from ingest.sqs.queue_client import QueueClient
from serve_app.config import LedgerConfig, QueueConfig
from serve_app.contracts.job import Output
from serve_app.contracts.outcome import Outcome
from serve_app.storage.local import LocalStore
from tests.support.fake_sqs import FakeSqs
from tests.support.image_messages import parse_image_message
from tests.support.run_records import record_outcomes, run_folder

FIXTURES = Path(__file__).with_name("v0_1_0")
LEDGER = LedgerConfig(bucket="b")
QUEUE = QueueConfig(url="http://localhost/q", output_bucket="b")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    shutil.copytree(FIXTURES / "store", tmp_path / "store")
    return LocalStore(tmp_path / "store")


@pytest.fixture
def shelf(store: LocalStore) -> RunFolder:
    return RunFolder(store, LEDGER, "shelf-1")


def messages() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FIXTURES / "messages.json").read_bytes())
    return content


def fields(name: str) -> set[str]:
    return set(json.loads((FIXTURES / "fields.json").read_bytes())[name])


def counts(folder: RunFolder) -> dict[str, int]:
    return RunMonitor(folder, read_manifest(folder)).update().counts


def test_a_run_is_read(shelf: RunFolder) -> None:
    manifest = read_manifest(shelf)
    assert (manifest.jobs, manifest.complete, manifest.recipe.format) == (5, True, "webp")
    assert JobList(shelf).sent() == Sent(jobs=5, complete=True)
    assert [entry.key for entry in JobList(shelf).entries()] == [f"in/{n}.jpg" for n in range(5)]
    assert [outcome.status for outcome in read_outcomes(shelf)] == [
        "done",
        "skipped_existing",
        "failed",
        "failed",
        "done",
    ]
    # Of two failures, one was redriven and has not ended since.
    assert counts(shelf) == {"done": 2, "skipped_existing": 0, "failed": 1, "missing": 2}
    shelf.store.put("b", "cutouts/in/0/f.webp", b"x", "image/webp")
    with Verification(shelf, manifest) as verification:
        found = verification.run()
    assert (found.ended, found.duplicates, found.without_object) == (3, 1, 1)


def test_its_parts_are_folded_with_new_ones(shelf: RunFolder) -> None:
    [failed] = [o for o in read_outcomes(shelf) if o.code == "corrupt_image"]
    again = failed.model_copy(update={"status": "done", "code": None, "message": None})
    record_outcomes(shelf.store, again)
    assert counts(shelf) == {"done": 3, "skipped_existing": 0, "failed": 1, "missing": 1}

    client: Any = FakeSqs()
    redriven = redrive_failures(
        QueueClient(client, "q"), shelf, read_manifest(shelf), RedriveOptions()
    )
    assert len(redriven.job_ids) == 1
    assert counts(shelf) == {"done": 3, "skipped_existing": 0, "failed": 0, "missing": 2}


def test_that_version_takes_jobs_that_are_redriven(shelf: RunFolder) -> None:
    client: Any = FakeSqs()
    redrive_failures(QueueClient(client, "q"), shelf, read_manifest(shelf), RedriveOptions())
    [body] = client.bodies
    assert set(json.loads(body)["recipe"]) <= fields("Recipe")
    assert json.loads(body)["recipe"]["matting"] == {"method": "decontaminate"}


def test_messages_without_a_run(store: LocalStore) -> None:
    day = run_folder(store, "live-2026-11-28")
    assert [outcome.job_id for outcome in read_outcomes(day)] == ["order-1"]
    assert RunMonitor(day, None).update().counts["done"] == 1
    [unread] = read_outcomes(run_folder(store, "invalid"))
    assert unread.code == "invalid_message"


def test_its_messages_and_dead_letters_are_jobs() -> None:
    bodies = messages()["messages"]
    jobs = [job for body in bodies for job in parse_image_message(body, QUEUE)]
    assert [job.source.key for job in jobs[:5]] == [f"in/{n}.jpg" for n in range(5)]
    assert {job.run_id for job in jobs} == {"shelf-1"}
    [letter] = messages()["dead_letters"]
    [job] = parse_image_message(letter["Body"], QUEUE)
    attributes = letter["MessageAttributes"]
    assert attributes["foreedge.job_id"]["StringValue"] == job.job_id
    assert attributes["foreedge.code"]["StringValue"] == "no_subject"


def test_that_version_reads_what_this_one_writes(store: LocalStore) -> None:
    folder = run_folder(store, "new")
    client: Any = FakeSqs()
    plan = plan_run(
        [Entry("b", f"in/{number}.jpg", "e") for number in range(3)],
        folder=folder,
        description="d",
        output=Output(bucket="b"),
        recipe="cutout",
    )
    send_run(QueueClient(client, "q"), plan)
    ids = [json.loads(body)["job_id"] for body in client.bodies]
    for job_id in ids:
        outcome = Outcome(job_id=job_id, run_id="new", status="failed", code="no_subject")
        record_outcomes(store, outcome)
    cancel_run(folder)
    assert compact_results(folder).after == 1

    # Its contracts refuse fields that they do not know.
    manifest = json.loads(folder.read("run.json"))
    assert set(manifest) <= fields("RunManifest")
    assert set(manifest["recipe"]) <= fields("Recipe")
    assert set(json.loads(folder.read("sent.json"))) <= fields("Sent")
    message = json.loads(client.bodies[0])
    assert set(message) - {"schema"} <= fields("Job")
    assert set(message["source"]) <= fields("Source")
    # It reads every object of the folders that ends so, with gzip.decompress.
    records = []
    for kind, known in (("results", fields("Outcome")), ("jobs", {*Entry._fields})):
        for key in store.keys("b", folder.key(f"{kind}/")):
            assert key.endswith(".jsonl.gz")
            lines = gzip.decompress(store.get("b", key)).splitlines()
            read = [json.loads(line) for line in lines]
            assert all(set(record) <= known for record in read)
            records.append([record["job_id"] for record in read])
    assert records == [ids, ids]
