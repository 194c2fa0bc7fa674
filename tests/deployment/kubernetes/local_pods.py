"""Pods of an overlay as machines of ``tests/nodes``, with no capability and a read-only root.

What Kubernetes adds to that (schedulers, services, probes) is not here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.nodes.machines import Machine, Network

_INSIDE = """
mount -o remount,bind,ro /
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all -- {command}
"""


class LocalPod:
    """A pod that runs."""

    def __init__(self, machine: Machine, network: Network) -> None:
        self._machine = machine
        self._network = network

    @property
    def log(self) -> str:
        """What it has printed."""
        return self._network.printed(self._machine)

    def stop(self, grace_s: float) -> bool:
        """Ask the pod to stop, as Kubernetes does.

        Args:
            grace_s: Time, in seconds, after which it is killed.

        Returns:
            Whether it stopped by itself.
        """
        self._machine.terminate()
        stopped = self._machine.wait(grace_s) is not None
        self._machine.close()
        return stopped


class LocalPods:
    """Pods on one network, in the namespaces of ``ground.COMMAND``."""

    def __init__(self, folder: Path) -> None:
        """Make their network.

        Args:
            folder: Folder for what the pods write, and for their logs.
        """
        self._network = Network(folder)

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
            address: Address of the pod, in the network of ``machines.HOST``.
            command: What runs in it, as process 1.
            environment: All variables of the process. ``HOME`` is set to a folder in ``/tmp``.
            shared_memory: Size of ``/dev/shm`` in bytes.
        """
        machine = self._network.boot(
            name,
            ["bash", "-ec", _INSIDE.format(command=shlex.join(command))],
            environment,
            address=address,
            shared_memory=shared_memory,
        )
        return LocalPod(machine, self._network)
