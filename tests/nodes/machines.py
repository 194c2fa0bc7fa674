"""Machines on one network: namespaces of this machine, joined by a bridge.

Each machine has its own network, processes, mounts, ``/tmp``, ``HOME`` and ``/dev/shm``. Its
command is its process 1, so that all others end with it. The CPUs, the clock and the other files
are shared. The bridge is on the side of the host, which is the namespaces of ``ground.COMMAND``.
"""

from __future__ import annotations

import itertools
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.nodes.ground import COMMAND, ROOT

HOST = "10.77.0.1"
"""Address of the host's side of the bridge."""
_BRIDGE = "machines"
_FIRST = 10
_LINK_NUMBERS = itertools.count(1)
"""Numbers of links. A network does not begin with 1 again: the kernel keeps a link of the network
before until the namespace of its machine is gone, some time after the machine has ended."""
_INSIDE = """
read -r _
ip link set lo up
mount --make-rprivate /
mount -t tmpfs -o size={shared_memory},mode=1777 tmpfs /dev/shm
{kept}
mount --rbind {tmp} /tmp
echo mounted >&{ready}
exec {command} {ready}>&-
"""


class Machine:
    """A machine that runs, or that did."""

    def __init__(
        self, name: str, address: str, process: subprocess.Popen[bytes], pid: int, link: str
    ) -> None:
        self.name = name
        self.address = address
        self._process = process
        self.pid = pid
        self._link = link

    def __repr__(self) -> str:
        return f"{self.name} ({self.address})"

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def terminate(self) -> None:
        """Send SIGTERM to process 1, as a notice of two minutes does through its container."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the machine at once, as a power failure does: its peers do not learn of it."""
        # The network goes first, or the kernel would close every connection in an orderly way.
        self.unplug()
        self._signal(signal.SIGKILL)
        self._process.wait()

    def wait(self, timeout_s: float) -> float | None:
        """Wait for the end of the machine.

        Args:
            timeout_s: Time, in seconds, to wait at most.

        Returns:
            Time, in seconds, that it took, or None if it still runs.
        """
        began = time.monotonic()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        return time.monotonic() - began

    def unplug(self) -> None:
        """Pull the network cable."""
        if self.runs:
            _ip(f"link set {self._link} nomaster")

    def plug(self) -> None:
        """Put the network cable back."""
        _ip(f"link set {self._link} master {_BRIDGE}")

    def call(self, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """Run a command on the machine, and return what it prints.

        Args:
            command: The command.
            environment: All variables of its process.

        Raises:
            CalledProcessError: It failed.
        """
        target = ["nsenter", "--target", str(self.pid), "--net", "--pid", "--mount", "--"]
        answer = subprocess.run(
            [*target, *command],
            env=dict(environment),
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return answer.stdout

    def close(self) -> None:
        """End the machine, if it still runs."""
        if self.runs:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Network:
    """The bridge, and the machines on it. A context manager that ends all of them."""

    def __init__(self, folder: Path) -> None:
        """Make the bridge.

        Args:
            folder: Folder for what the machines write, and for their logs.
        """
        self._folder = folder
        self.machines: list[Machine] = []
        """All machines that were booted, in that order."""
        _ip("link set lo up")
        _ip(f"link add {_BRIDGE} type bridge")
        _ip(f"addr add {HOST}/24 dev {_BRIDGE}")
        _ip(f"link set {_BRIDGE} up")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all machines, and remove the bridge."""
        for machine in self.machines:
            machine.close()
        _ip(f"link delete {_BRIDGE}")

    def next_address(self) -> str:
        """Return the address of the machine that is booted next."""
        return HOST.rpartition(".")[0] + f".{_FIRST + len(self.machines)}"

    def boot(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        address: str | None = None,
        shared_memory: int = 2**28,
    ) -> Machine:
        """Start a machine.

        Args:
            name: Name of the machine, which no other has had.
            command: Command of process 1. ``{address}`` in it becomes the machine's address.
            environment: All variables of the process. ``HOME`` is set to a folder in ``/tmp``.
            address: Address of a machine that has ended, or None for a new one.
            shared_memory: Size of ``/dev/shm`` in bytes.
        """
        number = next(_LINK_NUMBERS)
        address = address or self.next_address()
        tmp = self.tmp(name)
        (tmp / "home").mkdir(parents=True)
        mounted, ready = os.pipe()
        inside = _INSIDE.format(
            ready=ready,
            shared_memory=shared_memory,
            kept="\n".join(_kept(tmp)),
            tmp=shlex.quote(str(tmp)),
            command=shlex.join(one.replace("{address}", address) for one in command),
        )
        with self._log(name).open("wb") as output:
            process = subprocess.Popen(
                [*COMMAND, "bash", "-ec", inside],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**environment, "HOME": "/tmp/home"},
                cwd="/",
                # Ctrl-C reaches the harness alone, which ends its machines.
                start_new_session=True,
                pass_fds=[ready],
            )
        os.close(ready)
        machine = Machine(name, address, process, _only_child(process), f"port{number}")
        self.machines.append(machine)
        self._connect(machine, number)
        # It waits for its network.
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        # Whoever enters the machine before it has its own folders would see those of the host.
        with os.fdopen(mounted) as started:
            if not started.readline():
                raise RuntimeError(f"{name} did not start: {self.printed(machine)}")
        return machine

    def _connect(self, machine: Machine, number: int) -> None:
        pid = machine.pid
        _ip(f"link add port{number} type veth peer name far{number}")
        _ip(f"link set port{number} master {_BRIDGE} up")
        _ip(f"link set far{number} netns {pid} name eth0")
        inside = f"nsenter --target {pid} --net ip "
        for step in (
            # Peers that knew the last machine with this address need no new answer about it.
            f"link set eth0 address {_hardware_address(machine.address)}",
            f"addr add {machine.address}/24 dev eth0",
            "link set eth0 up",
            # Ray takes the address from which it would reach the internet.
            f"route add default via {HOST}",
        ):
            subprocess.run((inside + step).split(), check=True)

    def printed(self, machine: Machine) -> str:
        """Return what process 1 of a machine has printed."""
        return self._log(machine.name).read_text()

    def tmp(self, name: str) -> Path:
        """Return the folder that the machine of a name has as ``/tmp``."""
        return self._folder / name / "tmp"

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def _kept(tmp: Path) -> list[str]:
    """Return the commands that keep this checkout and its Python if they are below ``/tmp``."""
    steps = []
    for folder in {ROOT, Path(sys.prefix).resolve()}:
        if folder.is_relative_to("/tmp"):
            inside = shlex.quote(str(tmp / folder.relative_to("/tmp")))
            steps += [f"mkdir -p {inside}", f"mount --rbind {shlex.quote(str(folder))} {inside}"]
    return steps


def _hardware_address(address: str) -> str:
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


def _only_child(process: subprocess.Popen[bytes]) -> int:
    """Return the process in the new namespaces, which is 1 there, once it is forked."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (found := children.read_text().split()):
        if process.poll() is not None:
            raise RuntimeError(f"a machine did not start: status {process.returncode}")
        time.sleep(0.001)
    return int(found[0])
