"""Pods of an overlay as processes of this machine.

Each has a network, processes, ``/tmp``, ``HOME`` and ``/dev/shm`` of its own, no capability, and a
root that cannot be written to. What Kubernetes adds to that (schedulers, services, probes) is not
here. It runs as root, in namespaces of its own: see ``COMMAND``.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

COMMAND = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
"""Start of a command that runs in namespaces of its own, and takes all its processes with it."""
HOST = "10.203.0.254"
_TOOLS = ("unshare", "ip", "nsenter", "setpriv", "mount")
_INSIDE = """
read -r _
ip link set lo up
mount --make-rprivate /
mount -t tmpfs -o size={shared_memory},mode=1777 tmpfs /dev/shm
mount --bind {tmp} /tmp
mount -o remount,bind,ro /
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all -- {command}
"""


def pods_problem() -> str | None:
    """Return why pods cannot run on this machine, or None if they can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found"
    answer = subprocess.run(
        [*COMMAND, "ip", "link", "add", "test", "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    return None if answer.returncode == 0 else f"no namespaces here: {answer.stderr.strip()}"


class LocalPod:
    """A pod that runs."""

    def __init__(self, process: subprocess.Popen[bytes], pid: int, log: Path) -> None:
        self._process = process
        self._pid = pid
        self.log = log

    def stop(self, grace_s: float) -> bool:
        """Ask the pod to stop, as Kubernetes does.

        Args:
            grace_s: Time, in seconds, after which it is killed.

        Returns:
            Whether it stopped by itself.
        """
        subprocess.run(["kill", f"-{int(signal.SIGTERM)}", str(self._pid)], check=True)
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return True


class LocalPods:
    """Pods on one network, in the namespaces of ``COMMAND``."""

    def __init__(self, folder: Path) -> None:
        """Make their network.

        Args:
            folder: Folder for what the pods write, and for their logs.
        """
        self._folder = folder
        self._count = 0
        _run("ip link set lo up")
        _run("ip link add pods type bridge")
        _run(f"ip addr add {HOST}/24 dev pods")
        _run("ip link set pods up")

    def start(
        self,
        name: str,
        address: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        shared_memory: int,
    ) -> LocalPod:
        """Start a pod.

        Args:
            name: Name of the pod.
            address: Address of the pod, in the network of ``HOST``.
            command: What runs in it, as process 1.
            environment: All variables of the process. ``HOME`` is set to a folder in ``/tmp``.
            shared_memory: Size of ``/dev/shm`` in bytes.
        """
        tmp = self._folder / name
        (tmp / "home").mkdir(parents=True)
        inside = _INSIDE.format(shared_memory=shared_memory, tmp=tmp, command=shlex.join(command))
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, "bash", "-ec", inside],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**environment, "HOME": "/tmp/home"},
                cwd="/",
            )
        pid = _only_child(process.pid)
        self._count += 1
        here, there = f"pod{self._count}", f"peer{self._count}"
        _run(f"ip link add {here} type veth peer name {there}")
        _run(f"ip link set {here} master pods up")
        _run(f"ip link set {there} netns {pid}")
        for step in (
            f"addr add {address}/24 dev {there}",
            f"link set {there} up",
            # Ray takes the address from which it would reach the internet.
            f"route add default via {HOST}",
        ):
            _run(f"nsenter --target {pid} --net ip {step}")
        # It waits for its network.
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        return LocalPod(process, pid, log)


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)


def _only_child(pid: int) -> int:
    """Return the process in the new namespaces, which is 1 there, once it is forked."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not (found := children.read_text().split()):
        pass
    return int(found[0])
