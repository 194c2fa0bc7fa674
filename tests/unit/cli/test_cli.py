"""The command line: its output, the messages that it sends, and its exit codes."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingest.cli import options
from ingest.cli.main import app, main
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import Ledger
from ingest.runs.manifest import RunManifest, write_manifest
from serve_app.config import LedgerConfig
from serve_app.contracts.job import Output, Source
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.recipe import Recipe
from serve_app.errors import (
    InvalidConfig,
)
from serve_app.storage.local import LocalStore
from serve_app.version import find_version

START = datetime(2026, 1, 1, tzinfo=UTC)
LEDGER = LedgerConfig(bucket="b", part_interval_s=0.01)


class Workshop:
    """A local store, a configuration file for it, and a stand-in for SQS that runs every job."""

    def __init__(self, root: Path) -> None:
        self.store = LocalStore(root / "store")
        self.root = root
        self.config = root / "config.yaml"
        self.config.write_text(
            json.dumps({"storage": {"local_root": str(root / "store")}, "ledger": {"bucket": "b"}})
        )
        self.sent: list[str] = []

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command and return its exit code, output and errors."""
        result = CliRunner().invoke(app, [*arguments, "--config", str(self.config)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    # The SQS calls that a run makes.
    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        counts = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        return {"Attributes": dict.fromkeys(counts, "0")}

    def send_message_batch(self, QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:  # noqa: N803
        self.sent += [item["MessageBody"] for item in Entries]
        for item in Entries:
            message = json.loads(item["MessageBody"])
            self.record(message["run_id"], message["job_id"], message["source"]["key"])
        return {}

    def record(self, run_id: str, job_id: str, key: str) -> None:
        """Record the outcome of a job. It is a failure if its key contains 'bad'."""
        bad = "bad" in key
        outcome = Outcome(
            job_id=job_id,
            run_id=run_id,
            status="failed" if bad else "done",
            source=Source(bucket="b", key=key),
            code="no_subject" if bad else None,
            message="nothing [to] keep" if bad else None,
            finished_at=datetime.now(UTC) + timedelta(seconds=1),
        )

        async def write() -> None:
            ledger = Ledger(self.store, LEDGER)
            await ledger.record(outcome)

        asyncio.run(write())


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    made = Workshop(tmp_path)
    monkeypatch.setattr(options, "aws_client", lambda *_, **__: made)
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("FOREEDGE_QUEUE__URL", "FOREEDGE_LEDGER__BUCKET"):
        monkeypatch.delenv(name, raising=False)
    return made


def put(workshop: Workshop, *keys: str) -> None:
    for key in keys:
        workshop.store.put("b", key, b"x", "image/jpeg")


def start_run(workshop: Workshop, *keys: str, jobs: int | None = None) -> None:
    manifest = RunManifest(
        run_id="r1",
        created_at=START,
        description="d",
        output=Output(bucket="b"),
        recipe=Recipe(),
        jobs=len(keys) if jobs is None else jobs,
        queue_url="q",
    )
    write_manifest(RunFolder(workshop.store, LEDGER, "r1"), manifest)
    for key in keys:
        workshop.record("r1", key, key)


def test_a_dry_run_sends_and_writes_nothing(workshop: Workshop) -> None:
    put(workshop, "in/1.jpg", "in/2.jpg", "in/x.txt")

    code, out, _ = workshop.run("bulk", "s3://b/in/", "--dry-run")

    assert code == 0
    assert "2 images, each counted once" in out
    assert "1 other file skipped: 1 .txt" in out
    assert "s3://b/in/1.jpg" in out
    assert "s3://b/cutouts/" in out
    assert workshop.sent == []
    assert len(list(workshop.store.list("b", ""))) == 3


@pytest.mark.parametrize(("keys", "expected"), [(["in/1.jpg"], 0), (["in/1.jpg", "in/bad.jpg"], 1)])
def test_a_run_that_is_waited_for(workshop: Workshop, keys: list[str], expected: int) -> None:
    put(workshop, *keys)

    command = ("bulk", "s3://b/in/", "--queue", "http://q", "--run-id", "r7", "--wait")

    # Sent now, and when it is repeated, sent before.
    for _ in range(2):
        code, out, _ = workshop.run(*command)
        assert code == expected
        assert len(workshop.sent) == len(keys)
        assert ("no_subject: 1" in out) == bool(expected)


def test_without_waiting_it_says_how_to_watch(workshop: Workshop) -> None:
    put(workshop, "in/1.jpg")

    code, out, _ = workshop.run("bulk", "s3://b/in/", "--queue", "http://q", "--run-id", "r7")

    assert code == 0
    assert "foreedge status r7 --watch" in out


def test_a_folder_is_uploaded_and_sent(workshop: Workshop) -> None:
    folder = workshop.root / "photographs"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"x")

    code, _, _ = workshop.run("bulk", str(folder), "--queue", "http://q", "--run-id", "r7")

    assert code == 0
    assert json.loads(workshop.sent[0])["source"]["key"] == "uploads/r7/1.jpg"
    assert workshop.store.head("b", "uploads/r7/1.jpg") is not None


def test_status_in_words_and_as_json(workshop: Workshop) -> None:
    start_run(workshop, "1.jpg", "bad.jpg", jobs=3)

    code, out, _ = workshop.run("status", "r1")
    assert code == 0
    assert "2 of 3" in out
    assert "1 remain" in out
    assert "no_subject: 1" in out

    code, out, _ = workshop.run("status", "r1", "--json")
    data = json.loads(out)
    assert code == 0
    assert data["counts"] == {"done": 1, "skipped_existing": 0, "failed": 1, "missing": 1}


@pytest.mark.parametrize("flags", [["--watch"], ["--watch", "--json"]])
def test_watching_a_run_that_has_ended(workshop: Workshop, flags: list[str]) -> None:
    start_run(workshop, "1.jpg")
    assert workshop.run("status", "r1", *flags)[0] == 0
    start_run(workshop, "1.jpg", "bad.jpg")
    assert workshop.run("status", "r1", *flags)[0] == 1


def test_a_report_is_written(workshop: Workshop) -> None:
    start_run(workshop, "1.jpg", "bad.jpg")

    code, out, _ = workshop.run("report", "r1", "--out", str(workshop.root / "out"))

    assert code == 0
    assert "report.html" in out
    assert json.loads((workshop.root / "out" / "report.json").read_bytes())["run_id"] == "r1"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["status", "r9"], "source_not_found: no run 'r9'"),
        (["bulk", "s3://b/in/"], "invalid_config: no queue is configured"),
        (["bulk", "s3://b/in/", "--queue", "q"], "invalid_config: the queue 'q' is not a URL"),
        (
            ["errors", "r1", "--csv", "/no/such/folder/x.csv"],
            "invalid_config: cannot use /no/such/folder/x.csv: No such file",
        ),
        (["status", "a b"], "invalid_config: invalid run id 'a b'"),
        (["errors", "../r1"], "invalid_config: invalid run id '../r1'"),
        (["bulk", "s3://", "--dry-run"], "invalid_config: 's3://'"),
        (["bulk", "nowhere", "--dry-run"], "invalid_config: the source nowhere does not exist"),
        (["bulk", "s3://b/in/", "--dry-run", "--recipe", "x"], "invalid_recipe: recipe 'x'"),
        (["bulk", "s3://b/in/", "--dry-run"], "invalid_config: s3://b/in/: no images there"),
        (["serve", "--set", "segmenter.thread=1"], "invalid_config: configuration: segmenter"),
        (["serve", "--set", "x"], "invalid_config: --set x is not an assignment"),
    ],
)
def test_errors_are_one_line_and_exit_2(
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    start_run(workshop, "bad.jpg")
    command = ["foreedge", *arguments, "--config", str(workshop.config)]
    monkeypatch.setattr(sys, "argv", command)

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected}")
    assert error.count("\n") == 1


def test_the_version_is_printed(workshop: Workshop) -> None:
    found = CliRunner().invoke(app, ["--version"])
    assert (found.exit_code, found.stdout) == (0, f"foreedge {find_version()}\n")


def test_a_command_ends_with_4_if_the_ledger_does_not_answer(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (workshop.root / "store").write_text("no folder")
    workshop.config.write_text(
        json.dumps(
            {
                "ledger": {"bucket": "b"},
                "aws": {"endpoint_url": "http://127.0.0.1:9", "max_attempts": 1},
            }
        )
    )
    monkeypatch.setattr(sys, "argv", ["foreedge", "status", "r1", "--config", str(workshop.config)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 4
    assert capsys.readouterr().err.startswith("error: storage_unavailable: ")


def test_every_command_about_runs_speaks_json(workshop: Workshop) -> None:
    put(workshop, "in/1.jpg", "in/bad.jpg")

    def answer(*arguments: str) -> list[dict[str, Any]]:
        _, out, _ = workshop.run(*arguments, "--json")
        return [json.loads(line) for line in out.splitlines()]

    send = ("bulk", "s3://b/in/", "--queue", "http://q", "--run-id", "r7")
    assert answer(*send, "--dry-run") == [{"run_id": "r7", "images": 2, "sent": False}]
    assert answer(*send) == [{"run_id": "r7", "images": 2, "sent": True}]
    assert answer(*send) == [{"run_id": "r7", "images": 2, "sent": False}]
    [status] = answer("status", "r7")
    assert (status["state"], status["counts"]["failed"]) == ("ended", 1)
    assert answer("status", "r7", "--watch", "--queue", "http://q") == [
        status | {"queue": {"waiting": 0, "in_flight": 0}}
    ]
    [failure] = answer("errors", "r7")
    assert (failure["code"], failure["source"]) == ("no_subject", "s3://b/in/bad.jpg")
    [verified] = answer("verify", "r7")
    assert (verified["sound"], verified["failed"]) == (True, 1)
    [report] = answer("report", "r7", "--out", str(workshop.root / "out"))
    assert Path(report["report_html"]).is_file()
    [redriven] = answer("redrive", "r7")
    assert (redriven["redriven"], redriven["dead_letters_deleted"]) == (1, None)


def test_live_stands_for_todays_messages(workshop: Workshop) -> None:
    assert workshop.run("errors", "invalid")[:2] == (0, "0 failed jobs\n")
    workshop.record("live", "a", "1.jpg")
    workshop.record("live", "b", "bad.jpg")

    _, out, _ = workshop.run("status", "live")
    assert "2 images have a result (live-2" in out
    assert "1 failed job" in workshop.run("errors", "live")[1]
    assert workshop.run("report", "live", "--out", str(workshop.root / "out"))[0] == 0
    assert workshop.run("verify", "live")[0] == 0
    with pytest.raises(InvalidConfig, match="no end to wait for"):
        workshop.run("status", "live", "--watch")


def test_an_empty_live_run_names_the_day_before(workshop: Workshop) -> None:
    code, out, _ = workshop.run("errors", "live")
    [days] = re.findall(
        r"^live is today in UTC, (\S+)\. The day before: foreedge errors live-(\S+)$", out, re.M
    )
    today, before = map(date.fromisoformat, days)
    assert (code, today - before) == (0, timedelta(days=1))
    # Standard output stays for programs.
    for output in (["--json"], ["--csv", "-"]):
        _, out, errors = workshop.run("errors", "live", *output)
        assert ("The day before" in out, "The day before" in errors) == (False, True)
    assert "The day before" not in workshop.run("errors", f"live-{before}")[1]
    workshop.record("live", "b", "bad.jpg")
    assert "The day before" not in workshop.run("errors", "live")[1]


def test_a_ledger_is_needed(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["foreedge", "status", "r1"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2


def test_the_command_starts_without_the_libraries_that_only_some_commands_need() -> None:
    heavy = "ray onnxruntime numpy cv2 PIL jinja2 fastapi aiohttp matplotlib moto"
    code = f"import sys, ingest.cli.main; print(*(set(sys.modules) & set({heavy!r}.split())))"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split() == []


@pytest.mark.parametrize("words", [[], ["bulk"], ["serve"], ["plan"], ["demo"], ["verify"]])
def test_the_help_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    result = CliRunner().invoke(app, [*words, "--help"])

    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "…" not in result.stdout
