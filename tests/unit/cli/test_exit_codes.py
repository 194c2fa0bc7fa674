"""The exit codes, which scripts rely on."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ingest.cli import exit_codes
from ingest.cli.exit_codes import exit_code_of
from ingest.cli.main import app, main
from serve_app.errors import (
    ForeedgeError,
    InvalidConfig,
    ModelUnavailable,
    QueueUnavailable,
    SourceNotFound,
    StorageUnavailable,
)
from tests.support.pages import section


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StorageUnavailable("away"), 4),
        (QueueUnavailable("away"), 4),
        (ModelUnavailable("not downloaded"), 1),
        (InvalidConfig("wrong"), 2),
        (SourceNotFound("no run"), 2),
    ],
)
def test_each_kind_of_end_has_an_exit_code(error: ForeedgeError, expected: int) -> None:
    assert exit_code_of(error) == expected


def test_missing_weights_end_with_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No repetition brings them, as a failed download may end well at the next attempt."""
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["foreedge", "models", "path", "u2net"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: model_unavailable: The weights of u2net")


def test_every_exit_code_is_in_the_help_and_in_the_manual() -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.isupper()}
    page = Path(__file__).parents[3] / "docs" / "operations" / "runs.md"
    rows = re.findall(r"^\| (\d+) \|", section(page, "Exit codes"), re.MULTILINE)
    assert set(map(int, rows)) == codes
    assert app.info.epilog is not None
    assert set(map(int, re.findall(r"(?:^|: |\. )(\d+) ", app.info.epilog))) == codes
