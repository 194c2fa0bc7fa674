"""The pods of an overlay run, and end without a message in flight."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment.kubernetes.local_cluster import JOBS
from tests.deployment.kubernetes.objects import ROOT, kubectl_problem
from tests.nodes.ground import COMMAND
from tests.nodes.ground import problem as namespaces_problem

pytestmark = pytest.mark.slow
problem = kubectl_problem() or namespaces_problem()


@pytest.mark.skipif(problem is not None, reason=str(problem))
def test_pods_become_ready_with_the_application_and_release_their_messages(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.deployment.kubernetes.local_cluster", str(tmp_path)]
    answer = subprocess.run(
        [*COMMAND, *program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr[-4000:]
    seen = json.loads(answer.stdout.splitlines()[-1])
    assert seen["worker without a replica"] is None
    assert seen["dashboard without the token"] == 401
    assert seen["metrics of Ray"] == seen["metrics of HAProxy"] == 200
    assert seen["cut-out"] == 200
    assert seen["worker ended"]
    assert seen["in flight"] == 0
    # Whatever was deleted has its result.
    assert seen["results"] >= JOBS - seen["left"] > 0
    # This is why the probe of the workers is our own.
    assert seen["healthz without a worker"] == 200
    assert seen["readyz without a worker"] != 200
