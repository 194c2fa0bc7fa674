"""Messages without a run are recorded by the UTC day."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from ingest.runs.folder import RunFolder
from ingest.runs.ledger import read_outcomes
from ingest.runs.live import day_of_run, is_live, named_run_id, recorded_run_id, run_id_of_day
from ingest.runs.report import read_report
from ingest.runs.report_page import write_report
from ingest.runs.status import RunMonitor
from serve_app.config import AppConfig
from serve_app.contracts.outcome import Outcome
from serve_app.storage.local import LocalStore
from tests.support.run_records import LEDGER, record_outcomes, run_folder


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def live(job_id: str, at: datetime, status: str = "done") -> Outcome:
    code = "no_subject" if status == "failed" else None
    return Outcome.model_validate(
        {"job_id": job_id, "run_id": "live", "status": status, "code": code, "finished_at": at}
    )


def test_ids_of_days() -> None:
    late = datetime.fromisoformat("2026-01-31T23:30:00-02:00")
    assert recorded_run_id("live", late) == "live-2026-02-01"
    assert recorded_run_id("r1", late) == "r1"
    assert named_run_id("live") == run_id_of_day(datetime.now(UTC).date())
    assert named_run_id("live-2026-01-31") == "live-2026-01-31"
    assert is_live("live")
    assert is_live("live-2026-01-31")
    for other in ("live-2026-1-31", "live-2026-02-30", "live-x", "2026-01-31", "lives", "live-"):
        assert day_of_run(other) is None


def test_each_day_has_a_folder_of_its_own(store: LocalStore) -> None:
    days = [datetime(2026, 1, day, 23, 59, tzinfo=UTC) for day in (1, 2, 2)]
    record_outcomes(store, *(live(str(number), at) for number, at in enumerate(days)))

    assert list(store.folders("b", "_foreedge/runs/")) == ["live-2026-01-01", "live-2026-01-02"]
    found = read_outcomes(run_folder(store, "live-2026-01-02"))
    assert [outcome.job_id for outcome in found] == ["1", "2"]


def test_parts_of_version_0_1_0_belong_to_the_day_of_their_names(store: LocalStore) -> None:
    at = datetime(2026, 1, 2, 12, tzinfo=UTC)
    old = RunFolder(store, LEDGER, "live")
    for name, job_id in (
        ("20260101T235959.000000Z-a-000000", "before"),
        ("20260102T000000.000000Z-a-000001", "first"),
        ("20260102T235959.000000Z-a-000002", "both"),
        ("20260103T000000.000000Z-a-000003", "after"),
    ):
        line = orjson.dumps(live(job_id, at, "failed").model_dump(mode="json", exclude_none=True))
        old.write_part(old.part_key("results", name), [line])
    record_outcomes(store, live("both", at), live("new", at))

    now = RunMonitor(run_folder(store, "live-2026-01-02"), None).update()

    assert now.counts == {"done": 2, "skipped_existing": 0, "failed": 1, "missing": 0}
    assert now.state == "open"
    assert now.as_dict()["jobs"] is None


def test_a_report_of_a_day(store: LocalStore, tmp_path: Path) -> None:
    at = datetime(2026, 1, 2, 12, tzinfo=UTC)
    record_outcomes(store, live("a", at), live("b", at, "failed"))
    with read_report(run_folder(store, "live-2026-01-02")) as report:
        page = write_report(report, store, AppConfig(), tmp_path / "out", 0)
    assert "Messages that name no run" in page.read_text("utf-8")
    content = orjson.loads((tmp_path / "out" / "report.json").read_bytes())
    assert (content["run_id"], content["jobs_expected"]) == ("live-2026-01-02", 2)
