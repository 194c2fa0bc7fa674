"""The stand-in for kubectl, installed on PATH with a state of its own."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deployment import stand_in_kubectl

REPOSITORY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/foreedge"
LABEL = "app.kubernetes.io/version"


def image(digit: str) -> str:
    """Return an image whose digest is one digit many times."""
    return f"{REPOSITORY}@sha256:{digit * 64}"


@dataclass(frozen=True, slots=True)
class StandIn:
    """The state of the stand-in, from outside."""

    path: Path

    def read(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.path.read_text())
        return state

    def change(self, **values: Any) -> None:
        self.path.write_text(json.dumps(self.read() | values))

    def serve(self, release: str, revision: str) -> None:
        """Let a release be deployed and ready."""
        manifest = stand_in_kubectl.ray_service(release, {LABEL: revision})
        active = {"name": "foreedge-1", "image": release, "revision": revision}
        self.change(manifest=manifest, active=active, generation=1, observed=1)

    def deployed(self) -> tuple[str, str]:
        """Return the image and the revision that the RayService asks for."""
        manifest = self.read()["manifest"]
        return stand_in_kubectl.image_of(manifest), manifest["metadata"]["labels"][LABEL]

    def active(self) -> str:
        """Return the image of the cluster that gets the traffic."""
        return str(self.read()["active"]["image"])


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put the stand-in on PATH, for a cluster in which nothing is deployed."""
    kubectl = folder / "bin" / "kubectl"
    kubectl.parent.mkdir()
    # Without the packages of this environment it starts four times as fast.
    kubectl.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {stand_in_kubectl.__file__} "$@"\n')
    kubectl.chmod(0o755)
    state = folder / "kubectl.json"
    nothing = {"manifest": None, "active": None, "pending": None, "generation": 0, "observed": 0}
    state.write_text(json.dumps(nothing | {"faults": {}, "busy": 0, "calls": []}))
    monkeypatch.setenv("STAND_IN_KUBECTL", str(state))
    monkeypatch.setenv("PATH", str(kubectl.parent), prepend=":")
    return StandIn(state)
