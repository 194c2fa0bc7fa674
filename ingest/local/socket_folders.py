"""Folders for the Unix sockets of Ray and of HAProxy, whose paths may have about 100 bytes.

Both make names of their own below the folder that they get. With a long ``TMPDIR``, Ray would fail
when it starts, and HAProxy would take the whole application with it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from serve_app.errors import InvalidConfig

_SHORT = Path("/tmp")
"""Folder for sockets if that of the environment has too long a path."""

_RAY_MAX_BYTES = 107 if sys.platform == "linux" else 103
"""Longest path of a Unix socket, in bytes (``sun_path`` in unix(7)), without the final zero."""
_RAY_BELOW = "/ray/session_2026-11-28_17-50-58_620983_4194304/sockets/dash_MetricsHead"
"""Longest path that Ray makes below its folder: with the largest process id of Linux."""

_HAPROXY_MAX_BYTES = 97
"""Longest path of a socket that HAProxy accepts, in bytes."""
_HAPROXY_BELOW = f"/foreedge-12345678/{'0' * 56}/metrics.sock"
"""Longest path that Serve makes below our folder: with the id of a node."""


def haproxy_parent() -> Path:
    """Return the folder in which HAProxy's own folder is to be made."""
    folder = Path(tempfile.gettempdir())
    return folder if _fits(folder, _HAPROXY_BELOW, _HAPROXY_MAX_BYTES) else _SHORT


def ray_temporary_folder() -> str | None:
    """Return the folder for the sessions of a local Ray, or None for Ray's own choice.

    Raises:
        InvalidConfig: ``RAY_TMPDIR`` is set, and too long for the sockets of Ray.
    """
    asked_for = os.environ.get("RAY_TMPDIR")
    if asked_for is not None:
        if not _fits(Path(asked_for), _RAY_BELOW, _RAY_MAX_BYTES):
            most = _RAY_MAX_BYTES - len(_RAY_BELOW)
            raise InvalidConfig(
                f"RAY_TMPDIR is {asked_for}, which is too long for the paths of Ray's sockets. "
                f"Choose a folder whose path has at most {most} bytes, or remove the variable."
            )
        return None
    if _fits(Path(os.environ.get("TMPDIR", _SHORT)), _RAY_BELOW, _RAY_MAX_BYTES):
        return None
    return str(_SHORT / "ray")


def _fits(folder: Path, below: str, max_bytes: int) -> bool:
    return len(os.fsencode(folder)) + len(below) <= max_bytes
