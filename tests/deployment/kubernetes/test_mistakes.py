"""Mistakes in the RayService and its pods that no schema shows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deployment.kubernetes.faults import rule_faults
from tests.deployment.kubernetes.mistakes import RAY, REMOVED, with_mistake
from tests.deployment.kubernetes.objects import kubectl_problem

pytestmark = pytest.mark.skipif(kubectl_problem() is not None, reason=str(kubectl_problem()))


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("WORKER/template/spec/restartPolicy", "Always", "restartPolicy must be Never"),
        ("HEAD/headService", {"metadata": {"name": "x"}}, "headService.metadata.name"),
        ("CLUSTER/rayVersion", "2.50.0", "token needs rayVersion 2.52.0"),
        ("CLUSTER/rayVersion", "2.59.0", "rayVersion is 2.59.0, and the image has"),
        ("CLUSTER/networkPolicy", {}, "the feature gate RayClusterNetworkPolicy"),
        ("CLUSTER/tlsOptions", {}, "the feature gate RayClusterMTLS"),
        ("CLUSTER/upgradeStrategy", {"type": "None"}, "not for a cluster of a RayService"),
        ("CLUSTER/autoscalerOptions/version", REMOVED, "priority needs the autoscaler v2"),
        ("CLUSTER/enableInTreeAutoscaling", False, "enableInTreeAutoscaling is not set"),
        ("WORKER/suspend", True, "cannot be suspended"),
        ("WORKER/minReplicas", 30, "minReplicas 30 exceeds maxReplicas"),
        ("WORKER/resources", {"CPU": "7"}, "both in rayStartParams and in resources"),
        ("WORKER/rayStartParams/num-cpu", "7", "No such option '--num-cpu'"),
        ("HEAD/rayStartParams/object-store-memory", "1Gi", "'1Gi' is not a valid integer"),
        ("WORKER/rayStartParams/labels", "a=b", "rayStartParams.labels is not supported"),
        (
            "HEAD/CONTAINER/env/-",
            {"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"},
            "RAY_REDIS_ADDRESS is set without gcsFaultToleranceOptions",
        ),
        (
            "HEAD/CONTAINER/env/-",
            {"name": "RAY_enable_autoscaler_v2", "value": "1"},
            "are both set",
        ),
        ("HEAD/CONTAINER/ports/3/name", "http", "no port has the name serve"),
        ("metadata/name", "Foreedge", "is no DNS label"),
        (
            "spec/upgradeStrategy",
            {"type": "NewClusterWithIncrementalUpgrade"},
            "an incremental upgrade needs clusterUpgradeOptions",
        ),
        ("CLUSTER/gcsFaultToleranceOptions", {"backend": "rocksdb"}, "the feature gate GCSFault"),
    ],
)
def test_mistakes_that_kuberay_refuses(path: str, value: Any, fault: str) -> None:
    assert fault in "\n".join(rule_faults(with_mistake(*RAY, path, value)))


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("HEAD/rayStartParams/redis-password", "x", "redis-password belongs in"),
        (
            "HEAD/CONTAINER/env/-",
            {"name": "REDIS_PASSWORD", "value": "x"},
            "REDIS_PASSWORD belongs",
        ),
        ("metadata/annotations", {"ray.io/ft-enabled": "true"}, "are both set"),
        ("CLUSTER/gcsFaultToleranceOptions/redisAddress", REMOVED, "redisAddress is missing"),
        ("CLUSTER/gcsFaultToleranceOptions/redisAddress", "r:6380", "cannot reach Redis on port"),
    ],
)
def test_mistakes_with_redis(path: str, value: Any, fault: str) -> None:
    assert fault in "\n".join(rule_faults(with_mistake(*RAY, path, value, overlay="gcs-ft")))


def test_a_catalog_whose_database_no_pod_can_reach() -> None:
    objects = with_mistake("NetworkPolicy", "foreedge-ray", "spec/egress/4", REMOVED, "catalog")
    found = "\n".join(rule_faults(objects))
    assert "spot: it cannot reach the database of the catalog on port 5432" in found


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("CLUSTER/authOptions", REMOVED, "authOptions.mode is not token"),
        ("HEAD/rayStartParams/num-cpus", "2", "replicas may run on the head"),
        ("WORKER/rayStartParams/num-cpus", "8", "num-cpus is 8, and the pod has 7"),
        ("SPOT/rayStartParams/runtime-env-agent-port", REMOVED, "spot: ports of the agents"),
        ("SPOT/rayStartParams/dashboard-agent-grpc-port", "52365", "spot: agents share a port"),
        ("SPOT/CONTAINER/image", "foreedge:1", "different images: foreedge, foreedge:1"),
        ("HEAD/template/spec/nodeSelector/kubernetes.io~arch", "amd64", "head: its pods may run"),
        ("WORKER/template/spec/volumes/0/emptyDir", {}, "the volume tmp may fill the node"),
        ("WORKER/template/spec/volumes/0/emptyDir/sizeLimit", "20Gi", "and it requests 10Gi"),
        ("HEAD/CONTAINER/ports/2/containerPort", 8081, "the port metrics is 8081, not 8080"),
        ("HEAD/rayStartParams/dashboard-host", "127.0.0.1", "cannot reach the dashboard"),
        (
            "WORKER/CONTAINER/env/-",
            {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "0"},
            "RAY_SERVE_ENABLE_HA_PROXY is not 1",
        ),
        ("WORKER/CONTAINER/startupProbe/failureThreshold", 3, "gives up after 15 s"),
        ("WORKER/CONTAINER/livenessProbe/failureThreshold", 1, "gives up after 10 s"),
        ("SPOT/priority", REMOVED, "spot workers have no higher priority"),
        ("WORKER/CONTAINER/resources/limits/memory", "16Gi", "(12Gi) and limits (16Gi) differ"),
        ("WORKER/template/spec/volumes/2/emptyDir/sizeLimit", "64Mi", "is not within /dev/shm"),
        ("WORKER/template/spec/volumes/2/emptyDir/medium", "", "no memory of a fixed size"),
        (
            "WORKER/CONTAINER/readinessProbe/httpGet/path",
            "/-/healthz",
            "does not ask the application through HAProxy",
        ),
        ("SPOT/CONTAINER/readinessProbe", REMOVED, "spot: readinessProbe does not ask"),
        ("SPOT/CONTAINER/readinessProbe/periodSeconds", REMOVED, "spot: readinessProbe asks too"),
        ("SPOT/CONTAINER/readinessProbe/timeoutSeconds", 2, "gives /readyz less than 15 s"),
        ("HEAD/CONTAINER/readinessProbe/httpGet/path", "/readyz", "head: readinessProbe"),
        ("HEAD/CONTAINER/livenessProbe", REMOVED, "head: livenessProbe does not ask"),
        ("WORKER/template/spec/terminationGracePeriodSeconds", 80, "does not exceed 80 s"),
        ("SPOT/template/spec/terminationGracePeriodSeconds", 115, "longer than a spot node"),
        ("WORKER/CONTAINER/env/0/value", "30", "too short for consumers"),
        ("HEAD/CONTAINER/env/0/value", "30", "the head ends before its workers are drained"),
        ("WORKER/template/spec/serviceAccountName", "default", "service account default"),
        ("WORKER/CONTAINER/envFrom/0/configMapRef/name", "other", "the ConfigMap other"),
        ("WORKER/template/spec/topologySpreadConstraints", [], "not spread over zones"),
        ("WORKER/template/spec/initContainers", [], "no init container checks the node"),
        ("spec/excludeHeadPodFromServeSvc", False, "the head gets requests"),
        ("spec/rayClusterDeletionDelaySeconds", 5, "requests of the first cluster"),
        ("spec/serveConfigV2", "applications: []", "serveConfigV2 is not cluster/serve.yaml"),
        ("WORKER/CONTAINER/ports/0/containerPort", 8001, "the port serve is 8001, not 8000"),
    ],
)
def test_mistakes_with_pods(path: str, value: Any, fault: str) -> None:
    assert fault in "\n".join(rule_faults(with_mistake(*RAY, path, value)))


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("WORKER/template/spec/securityContext/runAsNonRoot", REMOVED, "runAsNonRoot is not true"),
        ("HEAD/template/spec/securityContext/runAsUser", 0, "it runs as root"),
        ("WORKER/CONTAINER/securityContext/privileged", True, "it is privileged"),
        ("WORKER/CONTAINER/securityContext/capabilities/drop", [], "drop all capabilities"),
        ("WORKER/CONTAINER/securityContext/readOnlyRootFilesystem", False, "can be written to"),
        ("CLUSTER/autoscalerOptions/securityContext", REMOVED, "autoscaler: allowPrivilege"),
        ("SPOT/template/spec/automountServiceAccountToken", True, "must be False"),
        ("HEAD/template/spec/automountServiceAccountToken", False, "must be True"),
        ("HEAD/template/spec/hostNetwork", True, "hostNetwork is set"),
        (
            "WORKER/template/spec/volumes/0",
            {"name": "tmp", "hostPath": {"path": "/tmp"}},
            "the volume tmp is of the kind hostPath",
        ),
        ("WORKER/CONTAINER/volumeMounts/0", REMOVED, "/tmp cannot be written to"),
        ("WORKER/template/spec/initContainers/0/securityContext", REMOVED, "smoke: it does not"),
    ],
)
def test_mistakes_with_rights(path: str, value: Any, fault: str) -> None:
    assert fault in "\n".join(rule_faults(with_mistake(*RAY, path, value)))
