"""The objects of an overlay, as kubectl renders them, and their parts."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "cluster" / "kubernetes"
OVERLAYS = ("spot", "on-demand", "gcs-ft", "catalog")
_KUSTOMIZE = 5
"""Oldest major version of Kustomize that knows every field of the overlays."""

Object = dict[str, Any]

_SUFFIXES = {
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("", "k", "M", "G", "T"))},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti"), 1)},
}


@cache
def kubectl_problem() -> str | None:
    """Return why overlays cannot be rendered on this machine, or None if they can."""
    if shutil.which("kubectl") is None:
        return "kubectl is not installed"
    answer = subprocess.run(
        ["kubectl", "version", "--client", "--output", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    version = json.loads(answer.stdout or "{}").get("kustomizeVersion", "")
    if not version.removeprefix("v")[:1].isdigit():
        return "the Kustomize of kubectl names no version"
    if int(version.removeprefix("v").split(".")[0]) < _KUSTOMIZE:
        return f"the Kustomize of kubectl is {version}, and {_KUSTOMIZE} is needed"
    return None


def render(folder: Path) -> list[Object]:
    """Return the objects that ``kubectl apply -k`` would apply.

    Args:
        folder: Folder of an overlay.

    Raises:
        ValueError: kubectl cannot render it. The message is kubectl's.
    """
    answer = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise ValueError(f"{folder.name}: {answer.stderr.strip()}")
    return list(yaml.load_all(answer.stdout, Loader=yaml.CSafeLoader))


def of_kind(objects: Sequence[Object], kind: str) -> list[Object]:
    """Return the objects of a kind."""
    return [one for one in objects if one["kind"] == kind]


def name_of(one: Object) -> str:
    """Return the kind and the name of an object, as errors name it."""
    return f"{one['kind']} {one['metadata']['name']}"


@dataclass(frozen=True)
class Group:
    """Pods of one kind in a Ray cluster: the head, or a group of workers.

    Attributes:
        name: Name of the group, or ``head``.
        spec: ``headGroupSpec``, or one of ``workerGroupSpecs``.
        is_head: Whether it is the head.
    """

    name: str
    spec: Object
    is_head: bool

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels of the pods."""
        labels: Mapping[str, str] = self.spec["template"].get("metadata", {}).get("labels", {})
        return labels

    @property
    def pod(self) -> Object:
        """Specification of the pods."""
        pod: Object = self.spec["template"]["spec"]
        return pod

    @property
    def container(self) -> Object:
        """Container of Ray. KubeRay takes the first one for it."""
        container: Object = self.pod["containers"][0]
        return container

    @property
    def environment(self) -> Mapping[str, Object]:
        """Variables of the container by their name."""
        return {variable["name"]: variable for variable in self.container.get("env", [])}

    @property
    def start(self) -> Mapping[str, str]:
        """Arguments of ``ray start``."""
        start: Mapping[str, str] = self.spec.get("rayStartParams", {})
        return start


def ray_service(objects: Sequence[Object]) -> Object:
    """Return the RayService.

    Raises:
        ValueError: There is none, or more than one.
    """
    services = of_kind(objects, "RayService")
    if len(services) != 1:
        raise ValueError(f"there are {len(services)} RayServices, and not one")
    return services[0]


def cluster_of(service: Object) -> Object:
    """Return the Ray cluster in a RayService."""
    cluster: Object = service["spec"]["rayClusterConfig"]
    return cluster


def groups_of(cluster: Object) -> list[Group]:
    """Return the head and the groups of workers."""
    workers = cluster.get("workerGroupSpecs", [])
    head = Group("head", cluster["headGroupSpec"], is_head=True)
    return [head, *(Group(one["groupName"], one, is_head=False) for one in workers)]


def containers_of(pod: Object) -> Iterator[Object]:
    """Yield the containers of a pod, also those that run before the others."""
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def quantity(text: str | int | float) -> Decimal:
    """Return the number that Kubernetes reads from a quantity such as ``500m`` or ``12Gi``.

    Raises:
        ValueError: It is none.
    """
    digits = str(text).rstrip("kKmMGTi")
    suffix = str(text)[len(digits) :]
    if suffix not in _SUFFIXES or not digits.replace(".", "", 1).isdigit():
        raise ValueError(f"{text!r} is no quantity of Kubernetes")
    return Decimal(digits) * _SUFFIXES[suffix]


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects an object with these labels.

    Args:
        selector: The selector. An empty one selects everything, None nothing.
        labels: Labels of the object.

    Raises:
        ValueError: The selector has an operator that Kubernetes does not know.
    """
    if selector is None:
        return False
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _meets(one, labels) for one in selector.get("matchExpressions", [])
    )


def _meets(expression: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    operator, values = expression["operator"], expression.get("values", [])
    if operator == "In":
        return bool(value in values)
    if operator == "NotIn":
        return bool(value not in values)
    if operator in ("Exists", "DoesNotExist"):
        return (value is not None) is (operator == "Exists")
    raise ValueError(f"{operator} is no operator of a label selector")
