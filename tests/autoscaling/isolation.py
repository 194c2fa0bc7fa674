"""A process in namespaces of its own, for a cluster that uses Ray's usual ports and folders."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

from serve_app.serving.ray_environment import ENVIRONMENT
from tests.autoscaling.samples import BacklogRun
from tests.nodes.ground import COMMAND, ROOT

_TIMEOUT_S = 900
_ROOM = "4g"
_SHARED_MEMORY = "2g"


def run_isolated(photographs: int) -> BacklogRun:
    """Run ``tests.autoscaling.backlog_run`` in namespaces of its own, which end with it.

    What it reports on the way goes to standard error.

    Args:
        photographs: Number of jobs.
    """
    module = "tests.autoscaling.backlog_run"
    command = [*COMMAND, sys.executable, "-m", module, "--photographs", str(photographs)]
    # Ray reads these when it is imported. As on a cluster, it asks for a token.
    environment = os.environ | ENVIRONMENT
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, timeout=_TIMEOUT_S, check=True
    )
    return BacklogRun.from_json(done.stdout.decode().splitlines()[-1])


def enter() -> None:
    """Give the namespaces of this process a network with nothing else, and folders of their own."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for folder, size in (("/tmp", _ROOM), ("/dev/shm", _SHARED_MEMORY)):
        options = f"size={size},mode=1777"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    os.environ.pop("TMPDIR", None)
