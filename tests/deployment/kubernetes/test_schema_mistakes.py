"""Mistakes that a schema shows, and that the API server would drop or refuse."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deployment.kubernetes.faults import schema_faults
from tests.deployment.kubernetes.mistakes import RAY, REMOVED, with_mistake
from tests.deployment.kubernetes.objects import kubectl_problem
from tests.deployment.kubernetes.schemas import crds_problem, validate_problem

pytestmark = pytest.mark.skipif(kubectl_problem() is not None, reason=str(kubectl_problem()))
needs_crds = pytest.mark.skipif(crds_problem() is not None, reason=str(crds_problem()))
needs_validate = pytest.mark.skipif(validate_problem() is not None, reason=str(validate_problem()))


@needs_crds
@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "fault"),
    [
        (*RAY, "WORKER/template/spec/nodeSelectr", {}, "'nodeSelectr' was unexpected"),
        (*RAY, "HEAD/CONTAINER/readinesProbe", {}, "'readinesProbe' was unexpected"),
        (*RAY, "WORKER/rayStartParams/num-cpus", 7, "7 is not of type 'string'"),
        (*RAY, "CLUSTER/autoscalerOptions/version", "v3", "'v3' is not one of"),
        (*RAY, "CLUSTER/authOptions/mode", "tokens", "'tokens' is not one of"),
        (*RAY, "WORKER/groupName", REMOVED, "'groupName' is a required property"),
        (*RAY, "WORKER/maxReplicas", 2**40, "is greater than the maximum"),
        (*RAY, "WORKER/template/spec/containers/0/resources/limits/memory", "12 Gi", "12 Gi"),
        (*RAY, "metadata/label", {}, "'label' was unexpected"),
        ("NodePool", "foreedge-spot", "spec/disruption/consolidateAfte", "2m", "was unexpected"),
        ("NodePool", "foreedge-spot", "spec/disruption/consolidateAfter", "soon", "'soon'"),
        ("EC2NodeClass", "foreedge", "spec/metadataOptions/httpTokens", "always", "'always'"),
        ("EC2NodeClass", "foreedge", "apiVersion", "karpenter.k8s.aws/v2", "has no EC2NodeClass"),
    ],
)
def test_mistakes_that_a_crd_shows(kind: str, name: str, path: str, value: Any, fault: str) -> None:
    assert fault in "\n".join(schema_faults(with_mistake(kind, name, path, value)))


@needs_validate
@pytest.mark.parametrize(
    ("kind", "name", "path", "value", "fault"),
    [
        ("PodDisruptionBudget", "foreedge-head", "spec/minAvailabl", 1, "minAvailabl"),
        ("NetworkPolicy", "foreedge-ray", "spec/ingres", [], "ingres"),
        ("ServiceAccount", "foreedge-worker", "automountServiceAccountToken", "no", "'no'"),
        ("Namespace", "foreedge", "metadata/labels/owner", 1, "1 is not of type"),
    ],
)
def test_mistakes_that_kubernetes_shows(
    kind: str, name: str, path: str, value: Any, fault: str
) -> None:
    assert fault in "\n".join(schema_faults(with_mistake(kind, name, path, value)))
