"""A long TMPDIR, and the sockets that Ray and HAProxy make below it."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.local.socket_folders import haproxy_parent, ray_temporary_folder
from serve_app.errors import InvalidConfig

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these paths are those of Linux")

_SESSION = "ray/session_2026-11-28_17-50-58_620983_4194304/sockets"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder with a short path, and let each test set TMPDIR below it."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    # What Python found for TMPDIR earlier.
    monkeypatch.setattr(tempfile, "tempdir", None)
    short = Path(tempfile.mkdtemp(dir="/tmp", prefix="s"))
    yield short
    shutil.rmtree(short)


def _bind(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("length", range(8, 60, 3))
def test_sockets_below_the_chosen_folder_can_be_made(
    length: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for = folder / ("x" * length)
    asked_for.mkdir()
    monkeypatch.setenv("TMPDIR", str(asked_for))
    chosen = ray_temporary_folder()
    if chosen is None:
        _bind(asked_for / _SESSION / "dash_MetricsHead")
    else:
        assert chosen == "/tmp/ray"
        assert len(str(asked_for / _SESSION / "dash_MetricsHead")) > 107
    parent = haproxy_parent()
    assert len(str(parent / "foreedge-12345678" / ("0" * 56) / "metrics.sock")) <= 97


def test_a_short_tmpdir_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert ray_temporary_folder() is None
    assert haproxy_parent() == Path("/tmp")


def test_a_long_ray_tmpdir_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    assert ray_temporary_folder() is None
    monkeypatch.setenv("RAY_TMPDIR", str(folder / ("x" * 60)))
    with pytest.raises(InvalidConfig, match=r"RAY_TMPDIR .* too long .* at most 35 bytes"):
        ray_temporary_folder()
