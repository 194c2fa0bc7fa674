"""``foreedge runs`` and ``foreedge cancel``."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from typer.testing import CliRunner

from ingest.cli import options
from ingest.cli.main import app
from ingest.runs.cancellation import is_cancelled, lift_cancellation
from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList, Sent
from ingest.runs.ledger_check import check_ledger
from ingest.runs.manifest import RunManifest, write_manifest
from serve_app.contracts.job import Output
from serve_app.contracts.recipe import Recipe
from serve_app.errors import InvalidConfig, QueueUnavailable, SourceNotFound
from tests.unit.cli.test_cli import LEDGER, Workshop, put

NOW = datetime.now(UTC)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    made = Workshop(tmp_path)
    monkeypatch.setattr(options, "aws_client", lambda *_, **__: made)
    monkeypatch.setenv("COLUMNS", "80")
    return made


def folder(workshop: Workshop, run_id: str) -> RunFolder:
    return RunFolder(workshop.store, LEDGER, run_id)


def add_run(workshop: Workshop, run_id: str, days_ago: int, jobs: int, *keys: str) -> None:
    """Add a run that was sent some days ago, with results of now or none."""
    manifest = RunManifest(
        run_id=run_id,
        created_at=NOW - timedelta(days=days_ago),
        description="d",
        output=Output(bucket="b"),
        recipe=Recipe(),
        jobs=jobs,
        queue_url="q",
    )
    write_manifest(folder(workshop, run_id), manifest)
    for key in keys:
        workshop.record(run_id, key, key)


def listed(workshop: Workshop) -> dict[str, Any]:
    _, out, _ = workshop.run("runs", "--json")
    return {run["run_id"]: run for run in map(json.loads, out.splitlines())}


def test_runs_are_listed_with_their_states(workshop: Workshop) -> None:
    assert "There are no runs" in workshop.run("runs")[1]
    add_run(workshop, "a-ended", 1, 2, "1.jpg", "bad.jpg")
    add_run(workshop, "b-running", 1, 2, "1.jpg")
    add_run(workshop, "c-lost", 30, 2)
    add_run(workshop, "d-cancelled", 1, 2)
    workshop.run("cancel", "d-cancelled")
    workshop.record("live", "x", "x.jpg")

    states = {run_id: run["state"] for run_id, run in listed(workshop).items()}
    today = next(name for name in states if name.startswith("live-"))
    assert states == {
        "a-ended": "ended",
        "b-running": "running",
        "c-lost": "stalled",
        "d-cancelled": "cancelled",
        today: "open",
    }
    _, out, _ = workshop.run("runs")
    lines = out.splitlines()
    assert lines[0].split() == ["run", "started", "(UTC)", "images", "done", "failed", "state"]
    assert lines[1].split()[-4:] == ["2", "1", "1", "ended"]
    assert max(map(len, lines)) <= 80


def test_old_runs_are_deleted_after_a_question(workshop: Workshop) -> None:
    add_run(workshop, "new", 1, 1)
    add_run(workshop, "old", 100, 1)
    add_run(workshop, "old-with-new-results", 100, 1, "1.jpg")
    workshop.store.put("b", "cutouts/old.png", b"x", "image/png")
    prune = ("runs", "--prune", "90d")

    with pytest.raises(InvalidConfig, match="--yes"):
        workshop.run(*prune)
    assert len(listed(workshop)) == 3
    for answer, left in (("n\n", 3), ("y\n", 2)):
        found = CliRunner().invoke(app, [*prune, "--config", str(workshop.config)], input=answer)
        assert found.exit_code == 0
        assert "Delete the records of 1 run (1 object)?" in found.stderr
        assert len(listed(workshop)) == left
    assert set(listed(workshop)) == {"new", "old-with-new-results"}
    assert workshop.store.head("b", "cutouts/old.png") is not None

    _, out, _ = workshop.run("runs", "--prune", "12h", "--yes", "--json")
    # A run that may still have messages is kept, whatever its age.
    assert json.loads(out) == {"deleted": [], "objects": 0}


def test_of_folders_without_an_end_old_parts_are_deleted(workshop: Workshop) -> None:
    old = folder(workshop, "invalid")
    for days in (100, 1):
        name = f"{NOW - timedelta(days=days):%Y%m%dT%H%M%S}.000000Z-c-000000"
        line = {"job_id": "x", "status": "failed", "finished_at": NOW.isoformat()}
        old.write_part(old.part_key("results", name), [json.dumps(line).encode()])
    _, out, _ = workshop.run("runs", "--prune", "90d", "--yes", "--json")
    assert json.loads(out) == {"deleted": ["invalid"], "objects": 1}
    assert len(list(old.part_keys("results"))) == 1


def test_the_results_of_runs_that_ended_are_joined(workshop: Workshop) -> None:
    add_run(workshop, "ended", 1, 3, "1.jpg", "2.jpg", "bad.jpg")
    add_run(workshop, "running", 1, 3, "1.jpg", "2.jpg")
    before = listed(workshop)

    _, out, _ = workshop.run("runs", "--compact", "--json")

    assert json.loads(out) == {"run_id": "ended", "objects_before": 3, "objects": 1}
    assert len(list(folder(workshop, "ended").part_keys("results"))) == 1
    assert len(list(folder(workshop, "running").part_keys("results"))) == 2
    assert listed(workshop) == before
    _, out, _ = workshop.run("runs", "--compact")
    assert "1 run: 1 object with results, 1 before." in out


@pytest.mark.parametrize("what", ["manifest", "results"])
def test_a_damaged_run_is_named_and_the_others_are_listed(workshop: Workshop, what: str) -> None:
    for run_id in ("a", "b", "c"):
        add_run(workshop, run_id, 1, 1, "1.jpg")
    damaged = folder(workshop, "b")
    key = damaged.key("run.json") if what == "manifest" else next(damaged.part_keys("results"))
    workshop.store.put("b", key, b"{", "application/json")

    code, out, errors = workshop.run("runs")
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()] == ["run", "a", "c"]
    assert errors.count("\n") == 1
    assert "Run b is damaged" in errors
    assert key in errors

    code, out, _ = workshop.run("runs", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [(line["run_id"], line["state"]) for line in lines] == [
        ("a", "ended"),
        ("c", "ended"),
        ("b", "damaged"),
    ]
    code, out, _ = workshop.run("runs", "--compact", "--json")
    assert (code, len(out.splitlines())) == (1, 3)


def test_the_probe_of_a_consumer_is_no_run(workshop: Workshop) -> None:
    check_ledger(workshop.store, LEDGER)
    assert listed(workshop) == {}
    _, out, _ = workshop.run("runs", "--prune", "1s", "--yes", "--json")
    assert json.loads(out) == {"deleted": [], "objects": 0}


def test_of_two_tasks_at_once_neither_is_left_out_silently(workshop: Workshop) -> None:
    add_run(workshop, "ended", 100, 1, "1.jpg")
    with pytest.raises(InvalidConfig, match="--compact and --prune"):
        workshop.run("runs", "--compact", "--prune", "1s", "--yes")
    assert set(listed(workshop)) == {"ended"}


def test_a_run_is_cancelled_and_resumed(workshop: Workshop) -> None:
    add_run(workshop, "r1", 1, 2, "1.jpg")
    code, out, _ = workshop.run("cancel", "r1")
    assert code == 0
    assert "Run r1 is cancelled" in out
    assert is_cancelled(folder(workshop, "r1"))
    _, out, _ = workshop.run("cancel", "r1", "--json")
    assert json.loads(out) == {"run_id": "r1", "cancelled": True}
    assert lift_cancellation(folder(workshop, "r1"))
    assert not lift_cancellation(folder(workshop, "r1"))

    with pytest.raises(SourceNotFound, match="no run 'r2'"):
        workshop.run("cancel", "r2")
    with pytest.raises(InvalidConfig, match="is no run"):
        workshop.run("cancel", "live")


def test_a_cancelled_run_that_is_sent_again_is_resumed(workshop: Workshop) -> None:
    put(workshop, "in/1.jpg", "in/bad.jpg")
    send = ("bulk", "s3://b/in/", "--queue", "http://q", "--run-id", "r7")
    workshop.run(*send)
    for again in (send, ("redrive", "r7", "--queue", "http://q")):
        assert workshop.run("cancel", "r7")[0] == 0
        assert "is not cancelled any more" in workshop.run(*again)[1]
        assert json.loads(workshop.run("status", "r7", "--json")[1])["cancelled"] is False


@pytest.mark.parametrize(
    "command",
    [("bulk", "s3://b/in/", "--run-id", "r7"), ("redrive", "r7")],
)
def test_a_run_stays_cancelled_while_its_queue_does_not_answer(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    put(workshop, "in/1.jpg", "in/bad.jpg")
    workshop.run("bulk", "s3://b/in/", "--queue", "http://q", "--run-id", "r7")
    workshop.run("cancel", "r7")

    def refuse(**_: Any) -> None:
        raise EndpointConnectionError(endpoint_url="http://q")

    monkeypatch.setattr(workshop, "get_queue_attributes", refuse)
    with pytest.raises(QueueUnavailable, match="GetQueueAttributes"):
        workshop.run(*command, "--queue", "http://q")
    assert is_cancelled(folder(workshop, "r7"))


@pytest.mark.parametrize("complete", [True, False])
def test_a_run_of_other_images_does_not_resume_one_that_is_cancelled(
    workshop: Workshop, complete: bool
) -> None:
    put(workshop, "in/1.jpg", "other/1.jpg")
    of_r7 = ("--queue", "http://q", "--run-id", "r7")
    workshop.run("bulk", "s3://b/in/", *of_r7)
    JobList(folder(workshop, "r7")).write_sent(Sent(jobs=1, complete=complete))
    workshop.run("cancel", "r7")

    with pytest.raises(InvalidConfig, match="already exists with a different source"):
        workshop.run("bulk", "s3://b/other/", *of_r7)

    assert is_cancelled(folder(workshop, "r7"))
    assert len(workshop.sent) == 1
