"""What is deployed: an image by its digest, and the revision that it was built from."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.deploy.waiting import DeploymentFailed

NAMESPACE = "foreedge"
"""Namespace of everything in `cluster/kubernetes`."""
RAY_SERVICE = "foreedge"
"""Name of the RayService in `cluster/kubernetes`."""
IMAGE_NAME = "foreedge"
"""Name that `cluster/kubernetes` has in place of an image."""
ENVIRONMENT_CONFIG_MAP = "foreedge-environment"
"""Name of the ConfigMap with the environment of every pod in `cluster/kubernetes`."""
REVISION_LABEL = "app.kubernetes.io/version"
"""Label of the deployed revision, on the RayService and on its pods."""

_ENVIRONMENT_FILE = "environment.env"
_IMAGE = re.compile(r"(?P<name>[^@\s]+)@(?P<digest>sha256:[0-9a-f]{64})")
_REVISION = re.compile(r"[0-9A-Za-z]([0-9A-Za-z_.-]{0,61}[0-9A-Za-z])?")
_POD_LABELS = (
    "spec/rayClusterConfig/headGroupSpec/template/metadata/labels",
    "spec/rayClusterConfig/workerGroupSpecs[]/template/metadata/labels",
)


@dataclass(frozen=True, slots=True)
class Release:
    """An image with its digest, and the revision that it was built from."""

    image: str
    """Repository and digest, as in ``host/foreedge@sha256:…``. A tag could be moved."""
    revision: str

    def __post_init__(self) -> None:
        if not _IMAGE.fullmatch(self.image):
            raise DeploymentFailed(
                f"{self.image!r} is no image with a digest: write REPOSITORY@sha256:DIGEST"
            )
        if not _REVISION.fullmatch(self.revision):
            raise DeploymentFailed(
                f"{self.revision!r} cannot be a label: write the commit as its hexadecimal digits"
            )

    def write_overlay(self, overlay: Path, folder: Path, environment: Path | None) -> None:
        """Write a kustomization that gives an overlay this image and this revision.

        Args:
            overlay: Folder of the overlay in `cluster/kubernetes`.
            folder: Folder of the kustomization.
            environment: File of ``FOREEDGE_NAME=value`` lines for every pod, or None for those of
                the overlay alone.

        Raises:
            DeploymentFailed: A file does not exist.
        """
        for file in (overlay / "kustomization.yaml", *([environment] if environment else [])):
            if not file.is_file():
                raise DeploymentFailed(f"{file} does not exist: name another one")
        folder.mkdir(parents=True, exist_ok=True)
        content = self._kustomization(os.path.relpath(overlay.resolve(), folder.resolve()))
        if environment is not None:
            shutil.copyfile(environment, folder / _ENVIRONMENT_FILE)
            content["configMapGenerator"] = [
                {
                    "name": ENVIRONMENT_CONFIG_MAP,
                    "namespace": NAMESPACE,
                    "behavior": "merge",
                    "envs": [_ENVIRONMENT_FILE],
                }
            ]
        # Every JSON document is a YAML document.
        (folder / "kustomization.yaml").write_text(json.dumps(content, indent=2), "utf-8")

    def _kustomization(self, base: str) -> dict[str, Any]:
        name, digest = self.image.split("@")
        fields = [{"kind": "RayService", "path": path, "create": True} for path in _POD_LABELS]
        return {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [base],
            "images": [{"name": IMAGE_NAME, "newName": name, "digest": digest}],
            "labels": [{"pairs": {REVISION_LABEL: self.revision}, "fields": fields}],
        }


def release_of(service: dict[str, Any]) -> Release:
    """Return the release that a RayService asks for.

    Raises:
        DeploymentFailed: It has no image with a digest, or no label with a revision.
    """
    labels = service["metadata"].get("labels") or {}
    return Release(head_image(service["spec"]["rayClusterConfig"]), labels.get(REVISION_LABEL, ""))


def head_image(ray_cluster: dict[str, Any]) -> str:
    """Return the image of the head, which all pods of a Ray cluster have.

    Args:
        ray_cluster: The ``spec`` of a RayCluster.
    """
    containers = ray_cluster["headGroupSpec"]["template"]["spec"]["containers"]
    return str(containers[0]["image"])
