"""What is wrong with the objects of an overlay, before a cluster finds out.

The rules need objects of the form that the schemas describe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version

from serve_app.config import AppConfig
from tests.deployment.kubernetes.application import (
    Deployment,
    application_faults,
    deployments,
    serving_faults,
    variables_of,
)
from tests.deployment.kubernetes.capacity import capacity_faults
from tests.deployment.kubernetes.kuberay import kuberay_faults
from tests.deployment.kubernetes.network import network_faults
from tests.deployment.kubernetes.objects import ROOT, Object, ray_service
from tests.deployment.kubernetes.pods import Times, pod_faults
from tests.deployment.kubernetes.schemas import (
    core_faults,
    crds_problem,
    custom_faults,
    validate_problem,
)
from tests.deployment.kubernetes.security import security_faults

SERVE_FILE = ROOT / "cluster" / "serve.yaml"


def schema_faults(objects: Sequence[Object]) -> Iterator[str]:
    """Yield what the schemas refuse that are on this machine."""
    refused = list(custom_faults(objects)) if crds_problem() is None else []
    yield from refused
    # The pods are in a RayService, whose form must be right.
    if validate_problem() is None and not refused:
        yield from core_faults(objects)


def rule_faults(objects: Sequence[Object]) -> Iterator[str]:
    """Yield what no schema says: rules of KubeRay, of Ray, of Kubernetes and of our own."""
    service = ray_service(objects)
    yield from kuberay_faults(service)
    yield from security_faults(objects)
    yield from network_faults(objects)
    text = service["spec"].get("serveConfigV2", "")
    if text != SERVE_FILE.read_text():
        yield "serveConfigV2 is not cluster/serve.yaml"
        return
    yield from serving_faults(objects)
    refused, application = _application(text, tuple(variables_of(objects).items()))
    yield from refused
    if application is None:
        return
    config, replicas = application
    if config.queue is None:
        yield "its pods get no FOREEDGE_QUEUE__URL"
        return
    stop_s = next(one.stop_s for one in replicas if one.name == "SqsIngest")
    yield from pod_faults(objects, version("ray"), Times.of(config, stop_s))
    yield from capacity_faults(objects, replicas)


@cache
def _application(
    text: str, variables: tuple[tuple[str, str], ...]
) -> tuple[list[str], tuple[AppConfig, list[Deployment]] | None]:
    """Return why an application is refused, or else its settings and deployments."""
    refused = list(application_faults(text, dict(variables)))
    return refused, None if refused else deployments(text, dict(variables))
