"""Jobs over HTTP: counts of their runs, and what becomes of each job that is posted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ingest.runs import submissions
from ingest.runs.manifest import read_manifest, write_manifest
from ingest.runs.status import RunMonitor
from ingest.runs.submissions import SqsJobs
from serve_app.config import AppConfig
from serve_app.contracts.submission import RunCounts
from serve_app.storage.local import LocalStore
from tests.support.fake_sqs import FakeSqs
from tests.support.run_records import (
    outcome,
    run_folder,
    run_manifest,
    write_redriven,
    write_results,
)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> FakeSqs:
    client = FakeSqs()
    monkeypatch.setattr(submissions, "aws_client", lambda *_, **__: client)
    return client


@pytest.fixture
def jobs(tmp_path: Path, sqs: FakeSqs) -> SqsJobs:
    settings = {
        "storage": {"local_root": str(tmp_path)},
        "ledger": {"bucket": "b"},
        "queue": {"url": "http://localhost/queue"},
    }
    return SqsJobs(AppConfig.load(settings))


def cli_status(store: LocalStore) -> dict[str, Any]:
    """Return what ``foreedge status --json`` prints of a run."""
    folder = run_folder(store)
    return RunMonitor(folder, read_manifest(folder)).update().as_dict()


def assert_agree(counts: RunCounts, status: dict[str, Any]) -> None:
    ended = {name: number for name, number in status["counts"].items() if name != "missing"}
    assert counts.counts == ended
    assert counts.codes == status["codes"]
    assert (counts.jobs, counts.remaining) == (status["jobs"], status["remaining"])


async def test_http_and_cli_agree_on_a_redriven_run(store: LocalStore, jobs: SqsJobs) -> None:
    write_manifest(run_folder(store), run_manifest(2))
    write_results(store, "1", outcome("done", 1, "a"), outcome("failed", 5, "b"))
    write_redriven(store, "1", 5, "b")

    counts = await jobs.counts("r1")

    assert (counts.counts["failed"], counts.remaining, counts.complete) == (0, 1, True)
    assert_agree(counts, cli_status(store))


async def test_http_and_cli_agree_while_a_run_is_listed(store: LocalStore, jobs: SqsJobs) -> None:
    folder = run_folder(store)
    write_manifest(folder, run_manifest(5_000, complete=False))
    write_results(store, "1", *(outcome("done", 1, f"j{number}") for number in range(5_000)))

    counts = await jobs.counts("r1")

    assert_agree(counts, cli_status(store))
    # A client that waits for the end of the run must not take this for it.
    assert (counts.remaining, counts.complete) == (0, False)

    write_manifest(folder, run_manifest(10_000_000))
    counts = await jobs.counts("r1")

    assert (counts.remaining, counts.complete) == (9_995_000, True)
    assert_agree(counts, cli_status(store))


async def test_a_run_of_200_parts_polled_four_times_at_once_completes(
    store: LocalStore, jobs: SqsJobs
) -> None:
    parts, jobs_per_part = 200, 5
    write_manifest(run_folder(store), run_manifest(parts * jobs_per_part))
    for part in range(parts):
        numbers = range(part * jobs_per_part, (part + 1) * jobs_per_part)
        write_results(store, f"{part:04}", *(outcome("done", 1, f"j{job}") for job in numbers))

    seen = [0, 0, 0, 0]
    for _ in range(-(-parts // 64)):
        polls = await asyncio.gather(*(jobs.counts("r1") for _ in range(4)))
        done = [counts.counts["done"] for counts in polls]
        assert all(now > before for now, before in zip(done, seen, strict=True))
        seen = done

    assert {(counts.remaining, counts.complete) for counts in polls} == {(0, True)}
    for counts in polls:
        assert_agree(counts, cli_status(store))


def job(number: int, **fields: Any) -> dict[str, Any]:
    return {"source": {"bucket": "b", "key": f"{number}.jpg"}, "output": {"bucket": "b"}, **fields}


async def test_jobs_on_the_queue_are_reported_although_the_ledger_refuses_their_manifest(
    tmp_path: Path, jobs: SqsJobs, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "b").write_text("no folder, so that nothing can be written")
    receipts = await jobs.submit([job(number) for number in range(3)])
    assert [receipt.status for receipt in receipts] == ["queued"] * 3
    assert f"run {receipts[0].run_id} has no manifest" in caplog.text


SNS_ENVELOPE = {"Type": "Notification", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "Message": "{}"}


@pytest.mark.parametrize(
    "foreign",
    [
        job(7, **SNS_ENVELOPE),
        job(7, **SNS_ENVELOPE, Records=[]),
        job(7, Records=[]),
        job(7, **{"detail-type": "Object Created"}),
        job(7, TopicArn="t", Message='{"Records": []}'),
    ],
)
async def test_a_job_that_looks_like_an_event_is_refused_alone(
    jobs: SqsJobs, sqs: FakeSqs, foreign: dict[str, Any]
) -> None:
    contents = [job(number) for number in range(1_000)]
    contents[7] = foreign

    receipts = await jobs.submit(contents)

    refused = receipts.pop(7)
    assert (refused.status, refused.code) == ("refused", "invalid_message")
    assert {receipt.status for receipt in receipts} == {"queued"}
    assert len(sqs.bodies) == 999


async def test_the_jobs_of_one_request_are_one_run(jobs: SqsJobs, sqs: FakeSqs) -> None:
    receipts = await jobs.submit([job(1), job(2, job_id="mine"), job(3, run_id="other"), {}])

    run_ids = [receipt.run_id for receipt in receipts]
    assert run_ids[0] == run_ids[1]
    assert (receipts[1].job_id, run_ids[2], receipts[3].status) == ("mine", "other", "refused")
    counts = await jobs.counts(run_ids[0] or "")
    assert (counts.jobs, counts.remaining, counts.complete) == (2, 2, True)
    assert len(sqs.bodies) == 3
