"""What the API server would refuse, or drop without a word."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from tests.deployment.kubernetes.objects import (
    ROOT,
    Object,
    cluster_of,
    groups_of,
    name_of,
    of_kind,
)

CRDS = Path(os.environ.get("CRDS") or ROOT.parent / "shared" / "crds")
"""Folder with the CRDs of KubeRay, Karpenter and Prometheus's operator. They are not part of this
repository."""
_FILES = {
    "RayService": "ray.io_rayservices.yaml",
    "NodePool": "karpenter.sh_nodepools.yaml",
    "EC2NodeClass": "karpenter.k8s.aws_ec2nodeclasses.yaml",
    "PodMonitor": "monitoring.coreos.com_podmonitors.yaml",
    "PrometheusRule": "monitoring.coreos.com_prometheusrules.yaml",
}
_OF_OVERLAYS = ("RayService", "NodePool", "EC2NodeClass")
_VALIDATE = ROOT / ".venv-deployment" / "bin" / "kubernetes-validate"
_RANGES = {"int32": 2**31, "int64": 2**63}
_METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "additionalProperties": False,
}
"""What a manifest may say of metadata. Its CRD leaves that to the API server."""


def crds_problem(*kinds: str) -> str | None:
    """Return why custom resources cannot be checked, or None if they can.

    Args:
        kinds: Kinds of the resources, by default those of the overlays.
    """
    files = [_FILES[kind] for kind in kinds or _OF_OVERLAYS]
    missing = [name for name in files if not (CRDS / name).is_file()]
    return f"no {', '.join(missing)} in {CRDS} (set CRDS)" if missing else None


def validate_problem() -> str | None:
    """Return why objects of Kubernetes itself cannot be checked, or None if they can."""
    return None if _VALIDATE.is_file() else f"{_VALIDATE} is missing (make check-kubernetes)"


def closed(schema: Any) -> Any:
    """Return the schema of a CRD as one that refuses unknown fields.

    The API server drops a field that the schema does not name, so that a misspelt one has no
    effect.

    Args:
        schema: OpenAPI schema, or a part of it.
    """
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: closed(one) for name, one in value.items()}
        if key == "properties"
        else closed(value)
        for key, value in schema.items()
    }
    kind, limit = schema.get("type"), _RANGES.get(schema.get("format", ""))
    if kind == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if kind == "integer" and limit is not None:
        made["allOf"] = [*made.get("allOf", []), {"minimum": -limit, "maximum": limit - 1}]
    if schema.get("nullable"):
        made["type"] = [kind, "null"]
    return made


@cache
def _validator(kind: str, api_version: str) -> Draft202012Validator:
    crd = yaml.load((CRDS / _FILES[kind]).read_text(), Loader=yaml.CSafeLoader)["spec"]
    schemas = {
        f"{crd['group']}/{version['name']}": version["schema"]["openAPIV3Schema"]
        for version in crd["versions"]
        if version["served"]
    }
    if api_version not in schemas:
        raise ValueError(f"{api_version} has no {kind}: {', '.join(schemas)} have")
    schema = closed(schemas[api_version])
    schema["properties"]["metadata"] = _METADATA
    # A manifest has no status.
    schema["properties"].pop("status", None)
    return Draft202012Validator(schema)


def custom_faults(objects: Sequence[Object]) -> Iterator[str]:
    """Yield what the CRDs of KubeRay and Karpenter do not allow, with unknown fields forbidden."""
    for one in objects:
        if one["kind"] not in _FILES:
            continue
        try:
            validator = _validator(one["kind"], one["apiVersion"])
        except ValueError as error:
            yield f"{name_of(one)}: {error}"
            continue
        for found in validator.iter_errors(one):
            place = ".".join(str(part) for part in found.absolute_path)
            yield f"{name_of(one)}: {place or 'object'}: {found.message[:200]}"


def core_faults(objects: Sequence[Object]) -> list[str]:
    """Return what Kubernetes does not allow in its own objects and in the pods of Ray."""
    core = [one for one in objects if one["kind"] not in _FILES]
    for service in of_kind(objects, "RayService"):
        for group in groups_of(cluster_of(service)):
            metadata = {**group.spec["template"].get("metadata", {}), "name": group.name}
            core.append(
                {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": group.pod}
            )
    with TemporaryDirectory() as folder:
        file = Path(folder) / "objects.yaml"
        file.write_text(yaml.safe_dump_all(core))
        answer = subprocess.run(
            [_VALIDATE, "--strict", "--quiet", file], capture_output=True, text=True, check=False
        )
    lines = (answer.stdout + answer.stderr).replace(str(file), "").splitlines()
    found = [line.strip() for line in lines if line.strip()]
    if answer.returncode != 0 and not found:
        raise RuntimeError(f"kubernetes-validate ended with {answer.returncode} and said nothing")
    return found
