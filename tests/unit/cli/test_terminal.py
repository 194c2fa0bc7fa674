"""Keys and messages of others on the terminal and in CSV files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from ingest.cli.main import main
from ingest.cli.progress import describe_run
from ingest.cli.terminal import write_csv
from ingest.runs.status import RunStatus
from serve_app.error_text import visible
from tests.unit.cli.test_cli import Workshop, start_run

HOSTILE = "bad\x1b[2J\x1b]0;title\x07\n\r\u202egpj.\u2028\x9b31m"
FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1")


def test_what_is_not_printable_is_shown_as_an_escape() -> None:
    assert visible("in/Übung 写真.jpg") == "in/Übung 写真.jpg"
    assert visible(HOSTILE).isprintable()
    assert visible("a\x1b\n\u202e\ud800") == "a\\x1b\\n\\u202e\\ud800"


def test_no_key_reaches_the_terminal_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    workshop = Workshop(tmp_path)
    start_run(workshop, HOSTILE)
    _, output, _ = workshop.run("errors", "r1")
    assert visible(f"s3://b/{HOSTILE}") in output
    assert all(line.isprintable() for line in output.split("\n"))


def test_an_error_reaches_the_terminal_in_one_printable_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "/none/\x1b[2J\n.yaml"
    monkeypatch.setattr("sys.argv", ["foreedge", "status", "r1", "--config", name])
    with pytest.raises(SystemExit):
        main()
    line = capsys.readouterr().err.removesuffix("\n")
    assert line.startswith("error: invalid_config")
    assert line.isprintable()


def test_no_code_of_a_record_reaches_the_terminal_raw(tmp_path: Path) -> None:
    now = RunStatus(
        run_id="r1",
        jobs=2,
        counts={"done": 0, "skipped_existing": 0, "failed": 200, "missing": 0},
        codes={HOSTILE: 1, "[red]": 1, "x" * 10_000: 1, **{str(number): 1 for number in range(99)}},
        wall_s=1,
        images_per_s=1,
    )
    text = describe_run(now)
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text) < 5_000
    assert "and 52 more codes" in text


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({}, "running"),
        ({"unsent": 1}, "sending"),
        ({"cancelled": True}, "cancelled"),
        ({"stalled": True}, "stalled"),
        ({"jobs": None}, "open"),
        ({"counts": {"done": 2, "skipped_existing": 0, "failed": 0, "missing": 0}}, "ended"),
    ],
    ids=["running", "sending", "cancelled", "stalled", "open", "ended"],
)
def test_a_status_as_text_names_the_state_as_its_json_does(
    more: dict[str, Any], state: str
) -> None:
    counts = {"done": 1, "skipped_existing": 0, "failed": 0, "missing": 1}
    values = {"run_id": "r1", "jobs": 2, "counts": counts, "codes": {}, "wall_s": 1}
    now = RunStatus(**{**values, "images_per_s": 1, **more})
    assert f"  state    {state}" in describe_run(now).splitlines()
    assert now.as_dict()["state"] == state


def _cells(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_cell_that_looks_like_a_formula_is_quoted(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows: list[list[Any]] = [[text, -1, None, "plain=1"] for text in FORMULAS]
    write_csv(str(path), "abcd", rows, raw=False)
    assert _cells(path)[1:] == [[f"'{text}", "-1", "", "plain=1"] for text in FORMULAS]
    write_csv(str(path), "abcd", rows, raw=True)
    assert [row[0] for row in _cells(path)[1:]] == list(FORMULAS)


def test_the_option_raw_of_errors(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    start_run(workshop, "=bad.jpg")
    for option, job_id in (([], "'=bad.jpg"), (["--raw"], "=bad.jpg")):
        assert workshop.run("errors", "r1", "--csv", str(tmp_path / "x.csv"), *option)[0] == 0
        assert job_id in _cells(tmp_path / "x.csv")[1]
