"""Folders that must be writable."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.smoke.checks import check_places
from serve_app.errors import InvalidConfig


def test_a_folder_that_does_not_exist_yet_may_be_made(tmp_path: Path) -> None:
    place = tmp_path / "ray" / "session"
    assert check_places({"sessions": place}) == {"sessions": str(place)}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named() -> None:
    with pytest.raises(InvalidConfig, match=r"^/proc/ray \(sessions\) cannot be written to"):
        check_places({"sessions": Path("/proc/ray")})
