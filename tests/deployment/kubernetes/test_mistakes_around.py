"""Mistakes in the network, the budgets and the nodes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.deployment.kubernetes.faults import rule_faults
from tests.deployment.kubernetes.mistakes import RAY, REMOVED, rendered, with_mistake
from tests.deployment.kubernetes.objects import kubectl_problem, ray_service

pytestmark = pytest.mark.skipif(kubectl_problem() is not None, reason=str(kubectl_problem()))


POLICY = "NetworkPolicy"


@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "fault"),
    [
        (POLICY, "foreedge-ray", "spec/ingress/-", {}, "the internet can reach port 6379"),
        (
            POLICY,
            "foreedge-ray",
            "spec/ingress/0/from/0",
            {"podSelector": {}},
            "same namespace can",
        ),
        (
            POLICY,
            "foreedge-ray",
            "spec/ingress/1/ports/1",
            REMOVED,
            "Prometheus cannot reach port 91",
        ),
        (
            POLICY,
            "foreedge-ray",
            "spec/ingress/1/from/0/podSelector",
            REMOVED,
            "not Prometheus can",
        ),
        (POLICY, "foreedge-ray", "spec/ingress/0", REMOVED, "it cannot reach head on port 6379"),
        (POLICY, "foreedge-ray", "spec/egress/2/to/0/ipBlock/except", [], "can reach the metadata"),
        (POLICY, "foreedge-ray", "spec/egress/1", REMOVED, "cannot reach DNS"),
        (
            POLICY,
            "foreedge-operator",
            "spec/ingress/0/from/0/namespaceSelector",
            {},
            "a false operator can reach port 8265",
        ),
        (
            POLICY,
            "foreedge-clients",
            "spec/ingress/0/ports/0",
            {"port": 8000, "endPort": 9000},
            "a client can reach port 8265",
        ),
        (POLICY, "foreedge-clients", "spec/podSelector", {}, "head: a client can reach port 8000"),
        (
            "PodDisruptionBudget",
            "foreedge-worker",
            "spec/minAvailable",
            REMOVED,
            "on-demand: its disruption budget has no number",
        ),
        ("PodDisruptionBudget", "foreedge-head", "spec/minAvailable", "50%", "has no number"),
        (
            "PodDisruptionBudget",
            "foreedge-head",
            "spec/selector/matchLabels",
            {"app": "x"},
            "head: it has 0 disruption budgets",
        ),
        ("PodDisruptionBudget", "foreedge-head", "spec/minAvailable", 2, "stops every drain"),
        ("PodDisruptionBudget", "foreedge-head", "metadata/namespace", "x", "in the namespace x"),
        (POLICY, "foreedge-ray", "metadata/namespace", "default", "in the namespace default"),
        ("ConfigMap", "foreedge-env", "data/FOREEDGE_QUEU__URL", "x", "FOREEDGE_QUEU__URL"),
        (
            "ConfigMap",
            "foreedge-env",
            "data/FOREEDGE_QUEUE__URL",
            REMOVED,
            "no FOREEDGE_QUEUE__URL",
        ),
        (
            "ConfigMap",
            "foreedge-env",
            "data/FOREEDGE_QUEUE__STOP_GRACE_S",
            "60",
            "not exceed 120 s",
        ),
        ("Namespace", "foreedge", "metadata/labels", {}, "does not enforce restricted"),
    ],
)
def test_mistakes_around_the_pods(kind: str, name: str, path: str, value: Any, fault: str) -> None:
    assert fault in "\n".join(rule_faults(with_mistake(kind, name, path, value)))


POOL = ("NodePool", "foreedge-spot")
REQUIREMENTS = "spec/template/spec/requirements"


@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "fault"),
    [
        (*POOL, f"{REQUIREMENTS}/2/values", ["c7i"], "c7i.2xlarge is no Graviton"),
        (*POOL, f"{REQUIREMENTS}/3/values", ["xlarge"], "does not fit c7g.xlarge"),
        (*POOL, f"{REQUIREMENTS}/0/values", ["amd64"], "spot: no node pool has nodes"),
        (*POOL, f"{REQUIREMENTS}/1/values", ["on-demand"], "spot: no node pool has nodes"),
        (*POOL, "spec/template/spec/taints/-", {"key": "a", "effect": "NoExecute"}, "no node pool"),
        (*POOL, "spec/template/spec/terminationGracePeriod", "60s", "before its pods (90 s)"),
        (*POOL, "spec/template/spec/nodeClassRef/name", "x", "EC2NodeClass is not among"),
        (*POOL, "spec/limits", REMOVED, "any number of nodes"),
        (*POOL, "spec/limits/cpu", "160", "needs limits.cpu 320 for two clusters"),
        (
            *POOL,
            "spec/disruption/consolidationPolicy",
            "WhenEmptyOrUnderutilized",
            "pods that have work would be moved",
        ),
        (*POOL, "spec/disruption/consolidateAfter", "0s", "consolidateAfter is no time"),
        (*POOL, "spec/disruption/budgets/0/nodes", "0", "keeps empty nodes for good"),
        ("NodePool", "foreedge-head", "spec/template/spec/expireAfter", "720h", "head expire"),
        ("EC2NodeClass", "foreedge", "spec/metadataOptions/httpPutResponseHopLimit", 2, "the role"),
        (
            "EC2NodeClass",
            "foreedge",
            "spec/amiSelectorTerms/0/alias",
            "al2023@latest",
            "the latest",
        ),
        ("EC2NodeClass", "foreedge", "spec/role", REMOVED, "a role or an instance profile"),
        (
            "EC2NodeClass",
            "foreedge",
            "spec/blockDeviceMappings/0/ebs/volumeSize",
            "20Gi",
            "does not hold the image",
        ),
        (*RAY, "WORKER/maxReplicas", 1, "all replicas need 22 workers"),
        (*RAY, "WORKER/minReplicas", 0, "the application starts on 1 workers, and 0 are always"),
        (*RAY, "WORKER/template/spec/nodeSelector/karpenter.sh~capacity-type", "x", "no node pool"),
    ],
)
def test_mistakes_with_nodes(kind: str, name: str, path: str, value: Any, fault: str) -> None:
    assert fault in "\n".join(rule_faults(with_mistake(kind, name, path, value)))


def test_an_image_without_a_digest() -> None:
    objects = deepcopy(rendered("spot"))
    cluster = ray_service(objects)["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            container["image"] = "foreedge:latest"
    assert "foreedge:latest has no digest" in "\n".join(rule_faults(objects))


def test_replicas_that_exceed_their_pod() -> None:
    objects = deepcopy(rendered("spot"))
    service = ray_service(objects)
    for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        group["rayStartParams"]["num-cpus"] = "1"
        container = group["template"]["spec"]["containers"][0]
        container["resources"]["requests"] = {"cpu": "1", "memory": "4Gi"}
        container["resources"]["limits"] = {"memory": "4Gi"}
    found = "\n".join(rule_faults(objects))
    assert "a replica of CutoutPipeline (2 CPUs) exceeds its pod (1 CPUs)" in found


def test_replicas_that_take_more_memory_than_their_pod() -> None:
    objects = deepcopy(rendered("spot"))
    for group in ray_service(objects)["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        resources = group["template"]["spec"]["containers"][0]["resources"]
        resources["requests"]["memory"] = resources["limits"]["memory"] = "8Gi"
    assert "3 replicas of CutoutPipeline and one of each small" in "\n".join(rule_faults(objects))
