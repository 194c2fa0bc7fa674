"""Machines are apart from each other, and nothing of a run stays, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.nodes.ground import (
    FOLDER_VARIABLE,
    ROOT,
    problem,
    processes_of,
    remove_leftovers,
    run_folder,
)

_problem = problem()
pytestmark = pytest.mark.skipif(_problem is not None, reason=str(_problem))

_RUN = """
import sys
from pathlib import Path
from tests.nodes.ground import run_folder, run_inside
with run_folder(Path(sys.argv[1])) as folder:
    sys.exit(run_inside("tests.nodes.trial", [str(folder), *sys.argv[2:]], folder))
"""


def test_machines_share_neither_files_nor_processes_nor_a_network(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["addresses"] == ["10.77.0.10", "10.77.0.11"]
    assert "http.server" in seen["process 1"]
    # Those are the server, the shell, ls and wc.
    assert int(seen["processes"]) <= 4
    assert seen["/tmp of the first"] == ["home", "note"]
    assert seen["/tmp of the second"] == ["home"]
    assert seen["/dev/shm of the second"] == []
    assert "note" not in seen["here"]
    assert seen["reached"] == [True, True]
    assert not seen["reached while cut off"]
    assert seen["reached when healed"]
    assert not seen["ended by SIGTERM"]
    assert not seen["runs after a kill"]
    assert seen["second runs"]
    assert seen["reached in the next network"]
    assert list(tmp_path.iterdir()) == []


@contextmanager
def hanging_run(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Yield a run with two machines, and its folder."""
    with subprocess.Popen(
        [sys.executable, "-c", _RUN, str(parent), "--hang"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            [folder] = parent.iterdir()
            # moto and Ray are not among them: two machines, their launchers, and the harness.
            assert len(processes_of(folder)) >= 4
            yield process, folder
        finally:
            process.kill()


def _all_ended(folder: Path) -> bool:
    deadline = time.monotonic() + 30
    while processes_of(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    with hanging_run(tmp_path) as (process, folder):
        process.send_signal(signal.SIGINT)
        process.wait(60)
        assert processes_of(folder) == []
        assert not folder.exists()


def test_a_killed_run_leaves_a_folder_which_the_next_one_removes(tmp_path: Path) -> None:
    with hanging_run(tmp_path) as (process, folder):
        # Not while it runs.
        assert remove_leftovers(tmp_path) == []
        process.kill()
        process.wait()
        assert _all_ended(folder)
        assert folder.exists()
        with run_folder(tmp_path) as own:
            assert list(tmp_path.iterdir()) == [own]


def test_processes_of_a_killed_run_are_ended_by_the_next_one(tmp_path: Path) -> None:
    folder = tmp_path / "foreedge-machines-old"
    folder.mkdir()
    mine = psutil.Process()
    # Another process has the number of the owner by now.
    (folder / "owner").write_text(f"{mine.pid} {mine.create_time() - 100}")
    variables = {**os.environ, FOLDER_VARIABLE: str(folder)}
    its_own = subprocess.Popen(["sleep", "600"], env=variables)
    another = subprocess.Popen(["sleep", "600"])
    try:
        assert remove_leftovers(tmp_path) == [folder]
        its_own.wait(10)
        assert another.poll() is None
    finally:
        for process in (its_own, another):
            process.kill()
            process.wait()
