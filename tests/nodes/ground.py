"""The namespaces of one run of machines, and what a killed run has left.

A run has network, mount and process namespaces of its own, and all its machines are inside. If any
process on the way to them is killed, the kernel kills what is below it, and removes their bridge,
their links and their mounts with the namespaces. Only the folder of the run can stay.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

COMMAND = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
)
"""Start of a command that runs in namespaces of its own, and takes all its processes with it. It
ends with the thread that starts it. It ignores SIGTERM and SIGINT, which its child must get."""

FOLDER_VARIABLE = "MACHINES_FOLDER"
"""Environment variable of all processes of a run, with the run's folder."""

ROOT = Path(__file__).parents[2]
_PREFIX = "foreedge-machines-"
_OWNER = "owner"
_TOOLS = ("setpriv", "unshare", "ip", "nsenter", "mount")
_END_S = 60.0
"""Time, in seconds, that a run has to end by itself after an interrupt."""


def problem() -> str | None:
    """Return why this machine cannot run others in namespaces, or None if it can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found: install util-linux and iproute2"
    answer = subprocess.run(
        [*COMMAND, "ip", "link", "add", "test", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode == 0:
        return None
    return f"no namespaces here, run it as root: {answer.stderr.strip()}"


@contextmanager
def run_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder for a run, and remove it at the end.

    What a killed run has left is removed first.

    Args:
        parent: Folder for it, or None for the temporary folder of this machine.
    """
    parent = parent or Path(tempfile.gettempdir())
    remove_leftovers(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        me = psutil.Process()
        (folder / _OWNER).write_text(f"{me.pid} {me.create_time()}")
        yield folder
    finally:
        end_processes(folder)
        shutil.rmtree(folder)


def remove_leftovers(parent: Path) -> list[Path]:
    """End the processes, and remove the folders, of runs whose owner does not live any more.

    Args:
        parent: Folder in which the runs had theirs.

    Returns:
        The folders that were removed.
    """
    found = [one for one in sorted(parent.glob(f"{_PREFIX}*")) if not _has_owner(one)]
    for folder in found:
        end_processes(folder)
        shutil.rmtree(folder)
    return found


def _has_owner(folder: Path) -> bool:
    try:
        pid, created = (folder / _OWNER).read_text().split()
        # Another process may have the number by now.
        return bool(psutil.Process(int(pid)).create_time() == float(created))
    except psutil.NoSuchProcess:
        return False
    except (FileNotFoundError, ValueError):
        # Its owner is about to write the file, unless it was killed just then.
        return time.time() - folder.stat().st_mtime < _END_S


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the processes of a run that live, this process excepted."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(FOLDER_VARIABLE) == str(folder) and process.pid != os.getpid():
                found.append(process)
    return found


def end_processes(folder: Path) -> None:
    """Kill all processes of a run that still live, and wait for their end."""
    found = processes_of(folder)
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(found, timeout=10)
    if alive:
        raise RuntimeError(f"processes of {folder} do not end: {[one.pid for one in alive]}")


def run_inside(module: str, arguments: Sequence[str], folder: Path) -> int:
    """Run a module of this checkout in namespaces of its own, and return its exit status.

    An interrupt of this process interrupts the module, which has a minute to end.

    Args:
        module: Name of the module.
        arguments: Arguments of the module.
        folder: Folder of the run.
    """
    with subprocess.Popen(
        [*COMMAND, sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, FOLDER_VARIABLE: str(folder)},
    ) as process:
        try:
            return process.wait()
        except BaseException:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children():
                    # A terminal has sent it already, and a second one would disturb the end.
                    if os.getpgid(process.pid) != _foreground_group():
                        child.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            process.kill()
            raise


def _foreground_group() -> int | None:
    """Return the process group that Ctrl-C of the terminal reaches, or None without one."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno())
    except (OSError, ValueError):
        return None
