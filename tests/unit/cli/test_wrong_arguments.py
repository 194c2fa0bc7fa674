"""Arguments that cannot be meant: one line says what is wrong, and nothing is done."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.cli.main import main
from ingest.node.report import check_report_path
from serve_app.storage.local import LocalStore

Command = Callable[..., str]
SEND = ("--queue", "http://q", "--ledger-bucket", "b")


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs a command, checks that it is refused, and returns the reason."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["foreedge", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 2
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        return said.err

    return run


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["bulk", "", "--queue", "http://q"], "the argument after bulk"),
        (["bulk", ".", "--upload-to", "", "--queue", "http://q"], "the argument after --upload-to"),
        (["bulk", ".", "--run-id=", "--queue", "http://q"], "--run-id"),
        (["demo", "--images", " "], "the argument after --images"),
        (["demo", "--images="], "--images"),
        (["catalog", "enqueue", "--books", ""], "the argument after --books"),
    ],
    ids=["source", "upload-to", "run-id", "images", "images-option", "books"],
)
def test_an_empty_argument_stands_for_no_folder_and_no_default(
    refused: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    place: str,
) -> None:
    store = LocalStore(tmp_path / "store")
    settings = {"storage": {"local_root": str(tmp_path / "store")}, "ledger": {"bucket": "b"}}
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    (tmp_path / "private.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    with_settings = [] if "demo" in arguments else ["--config", "config.yaml"]

    error = refused(*arguments, *with_settings)

    assert error.startswith(f"error: invalid_config: {place} is empty.")
    assert list(store.list("b", "")) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["node.yaml", "foreedge.json"])
def test_a_measured_node_replaces_no_report_and_no_settings_of_others(
    refused: Command, tmp_path: Path, name: str
) -> None:
    (tmp_path / "foreedge.yaml").write_text("models: [u2netp]\n")

    # The model is not known, which would be said once the measurement begins.
    error = refused("bench-node", "--model", "nowhere", "--out", str(tmp_path / name))

    assert error.startswith(f"error: invalid_config: --out {tmp_path / name}")
    assert [path.name for path in tmp_path.iterdir()] == ["foreedge.yaml"]
    assert (tmp_path / "foreedge.yaml").read_text() == "models: [u2netp]\n"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["."], "--out . is a folder"),
        (["folder"], "--out folder is a folder. Give the path of a file, such as folder/node.json"),
        (["package.json"], "would replace a file that foreedge bench-node did not make"),
        (["package.json", "--emulated"], "would replace a file that foreedge bench-node did not"),
        (["package.json/node.json"], "package.json is a file, so that nothing can be below it"),
        (["taken.json"], "the settings would replace taken.yaml"),
    ],
    ids=["here", "folder", "foreign", "emulated", "below", "settings"],
)
def test_a_report_of_a_node_replaces_nothing_else(
    refused: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.yaml").mkdir()
    (tmp_path / "package.json").write_text('{"name": "foreign"}')
    monkeypatch.chdir(tmp_path)
    # The model is not known, which would be said once the measurement begins.
    assert reason in refused("bench-node", "--model", "nowhere", "--out", *arguments)
    assert (tmp_path / "package.json").read_text() == '{"name": "foreign"}'


def test_a_report_replaces_one_of_another_version(tmp_path: Path) -> None:
    older = tmp_path / "node.json"
    older.write_text('{"measured_at": "x", "model": "m", "cpu": "c", "cores": 2, "speeds": []}')
    check_report_path(older)
    check_report_path(tmp_path / "new" / "folder" / "node.json")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["runs", "--ledger-bucket", "b", "--prune", "1000000d"], "100 years at most"),
        (["runs", "--ledger-bucket", "b", "--prune", f"{'9' * 400}d"], "100 years at most"),
        (["smoke", "--timeout", f"{'9' * 400}d"], "100 years at most"),
        (["smoke", "--timeout", "30d"], "--timeout 30d is longer than a week"),
        (["plan", "--images", "9" * 400, "--deadline", "24h"], "from 1 to 1,000,000,000,000"),
        (["plan", "--images", "1M", "--deadline", "24h", "--plot", "x.txt"], "--plot x.txt"),
        (["bulk", "photo.JPG", *SEND], "photo.JPG is one image. Give the folder"),
        (["bulk", "photo.raw", *SEND], "photo.raw: it is no text in UTF-8"),
        (["serve", "--config", "text.yaml"], "text.yaml: the application must be a mapping"),
        (["serve", "--config", "args.yaml"], "args.yaml: the settings must be a mapping"),
    ],
    ids=[
        "age",
        "long-age",
        "timeout",
        "month",
        "count",
        "plot",
        "image",
        "binary",
        "application",
        "args",
    ],
)
def test_a_value_out_of_range_is_named_in_one_line(
    refused: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
) -> None:
    (tmp_path / "text.yaml").write_text("applications: [foreedge]")
    (tmp_path / "args.yaml").write_text("applications: [{args: [folio]}]")
    for name in ("photo.JPG", "photo.raw"):
        (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0")
    monkeypatch.chdir(tmp_path)

    error = refused(*arguments)

    assert reason in error
    assert len(error) < 300


PLAN = ("plan", "--images", "1M", "--deadline", "24h")


@pytest.mark.parametrize("value", ["inf", "nan", "1e300"])
@pytest.mark.parametrize(
    "command",
    [
        (*PLAN, "--time-factor"),
        (*PLAN, "--price"),
        (*PLAN, "--node-cpus"),
        (*PLAN, "--spot-fraction"),
        ("bench-node", "--model", "nowhere", "--seconds"),
        ("redrive", "r1", "--ledger-bucket", "b", "--rate"),
    ],
    ids=["time-factor", "price", "node-cpus", "spot-fraction", "seconds", "rate"],
)
def test_a_number_has_bounds(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    value: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["foreedge", *command, value])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"Invalid value for '{command[-1]}'" in capsys.readouterr().err


def test_no_photograph_is_drawn_with_a_negative_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["foreedge", "demo", "--seed", "-1"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--seed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
