"""The rights of the job that deploys are those that it needs, and no more."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

from tests.deployment.kubernetes.objects import (
    FOLDER,
    OVERLAYS,
    Object,
    kubectl_problem,
    of_kind,
    render,
)
from tests.deployment.workflows import ROOT, TOOLS

FILE = FOLDER / "deployer" / "rbac.yaml"
CHECKS = {
    ("ray.io", "rayclusters", "get"),
    ("", "pods", "get"),
    ("", "pods", "list"),
    ("", "services", "get"),
    ("", "services", "list"),
    ("", "pods/log", "get"),
    ("", "pods/portforward", "get"),
    ("", "pods/portforward", "create"),
}
"""What `cluster/deploy/verification.py` asks for: group, resource and verb."""


def rules() -> list[dict[str, Any]]:
    objects = list(yaml.safe_load_all(FILE.read_text("utf-8")))
    return [
        rule
        for kind in ("Role", "ClusterRole")
        for role in of_kind(objects, kind)
        for rule in role["rules"]
    ]


def granted() -> set[tuple[str, str, str]]:
    """Return what is granted: group, resource and verb."""
    return {
        (group, resource, verb)
        for rule in rules()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def resource_of(one: Object) -> tuple[str, str]:
    """Return the group and the resource of an object, as its API names them."""
    group, _, version = one["apiVersion"].rpartition("/")
    kind = one["kind"].lower()
    plural = {"networkpolicy": "networkpolicies", "ec2nodeclass": "ec2nodeclasses"}
    assert version
    return group, plural.get(kind, f"{kind}s")


@pytest.mark.skipif(kubectl_problem() is not None, reason=str(kubectl_problem()))
def test_the_job_may_apply_every_overlay_and_check_it_and_nothing_else() -> None:
    applied = {
        resource_of(one) for overlay in OVERLAYS for one in render(FOLDER / "overlays" / overlay)
    }
    needed = {(*kind, verb) for kind in applied for verb in ("get", "create", "patch")}
    # An administrator has made the namespace, since the role is in it.
    needed -= {("", "namespaces", "create")}
    assert granted() == needed | CHECKS


def test_the_job_may_change_its_own_namespace_alone() -> None:
    [namespaces] = [rule for rule in rules() if "namespaces" in rule["resources"]]
    assert namespaces["resourceNames"] == ["foreedge"]
    objects = list(yaml.safe_load_all(FILE.read_text("utf-8")))
    for one in of_kind(objects, "Role") + of_kind(objects, "RoleBinding"):
        assert one["metadata"]["namespace"] == "foreedge"


@pytest.mark.skipif(not (TOOLS / "kubernetes-validate").exists(), reason="no .venv-deployment")
def test_kubernetes_knows_every_field() -> None:
    done = subprocess.run(
        [TOOLS / "kubernetes-validate", "--strict", FILE], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
