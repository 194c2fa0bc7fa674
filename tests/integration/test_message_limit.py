"""The check of Ray Serve's limit of messages between replicas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.serving.ray_environment import ENVIRONMENT

_BUILD = """
import sys
from serve_app.app import build
from serve_app.errors import InvalidConfig
try:
    build({"limits.max_bytes": int(sys.argv[1])})
except InvalidConfig as error:
    sys.exit(error.message)
"""
_GRPC = {"RAY_SERVE_USE_GRPC_BY_DEFAULT": "1"}
_LIMIT = "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"


@pytest.mark.parametrize(
    ("environment", "max_bytes", "refused"),
    [
        # Ray's own limit is 4 MiB.
        (_GRPC, 8_000_000, True),
        ({"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}, 8_000_000, True),
        (ENVIRONMENT, 32_000_000, False),
    ],
)
def test_images_that_serve_cannot_pass_on_are_refused_at_the_start(
    environment: dict[str, str], max_bytes: int, refused: bool
) -> None:
    # Ray reads these variables when it is imported.
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    found = subprocess.run(
        [sys.executable, "-c", _BUILD, str(max_bytes)],
        env={**inherited, **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (found.returncode == 1) == refused, found.stderr
    assert ("limits.max_bytes" in found.stderr and _LIMIT in found.stderr) == refused
