"""Calls of kubectl, for the objects of one namespace."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.deploy.waiting import DeploymentFailed, NotYet

_CALL_TIMEOUT_S = 120
_FORWARDING = re.compile(r"^Forwarding from 127\.0\.0\.1:(\d+) -> ")


class Kubectl:
    """kubectl with the context of its own configuration, and one namespace."""

    def __init__(self, namespace: str) -> None:
        self._command = ["kubectl", "--namespace", namespace]

    def apply_folder(self, folder: Path) -> None:
        """Apply everything that a folder with a kustomization renders.

        Raises:
            DeploymentFailed: An object was refused. Others may have been changed.
        """
        self._call("apply", "--kustomize", str(folder))

    def apply_text(self, manifest: str) -> None:
        """Apply one manifest, as JSON.

        Raises:
            DeploymentFailed: It was refused.
        """
        self._call("apply", "--filename", "-", text=manifest)

    def last_applied(self, kind: str, name: str) -> str | None:
        """Return the manifest of an object as it was last applied, as JSON. None without an object.

        Raises:
            DeploymentFailed: It cannot be read.
        """
        if not self._call("get", kind, name, "--ignore-not-found", "--output", "name").strip():
            return None
        return self._call("apply", "view-last-applied", kind, name, "--output", "json")

    def read(self, kind: str, *arguments: str) -> dict[str, Any]:
        """Return an object or a list of objects.

        Raises:
            NotYet: The API server does not answer, or refuses. It may be busy for a moment.
        """
        found: dict[str, Any] = json.loads(self._ask("get", kind, *arguments, "--output", "json"))
        return found

    def logs(self, pod: str, container: str) -> str:
        """Return what a container has printed.

        Raises:
            NotYet: The API server does not answer, or refuses.
        """
        return self._ask("logs", pod, "--container", container)

    @contextmanager
    def forward(self, target: str, port: int) -> Iterator[str]:
        """Forward a port of a pod or service while the context lasts.

        Yields:
            The URL on this machine.

        Raises:
            NotYet: kubectl cannot forward it, for example because no pod is ready.
        """
        command = [*self._command, "port-forward", "--address", "127.0.0.1", target, f":{port}"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as forwarding:
            try:
                assert forwarding.stdout is not None
                assert forwarding.stderr is not None
                begun = _FORWARDING.match(forwarding.stdout.readline())
                if begun is None:
                    raise NotYet(f"kubectl port-forward {target}: {forwarding.stderr.read()}")
                yield f"http://127.0.0.1:{begun[1]}"
            finally:
                forwarding.terminate()

    def _ask(self, *arguments: str) -> str:
        try:
            return self._call(*arguments)
        except DeploymentFailed as error:
            raise NotYet(str(error)) from error

    def _call(self, *arguments: str, text: str | None = None) -> str:
        call = f"kubectl {' '.join(arguments)}"
        try:
            done = subprocess.run(
                [*self._command, *arguments],
                input=text,
                capture_output=True,
                text=True,
                timeout=_CALL_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            raise DeploymentFailed(f"{call} did not end within {_CALL_TIMEOUT_S} s") from error
        except OSError as error:
            raise DeploymentFailed(
                f"kubectl cannot be run: {error.strerror}. Install it, and have it on PATH"
            ) from error
        if done.returncode:
            raise DeploymentFailed(f"{call}: {done.stderr.strip()}")
        return done.stdout
