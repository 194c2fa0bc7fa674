"""Probes that find a pod ready at the right time, and dead only if it is."""

from __future__ import annotations

from collections.abc import Iterator

from tests.deployment.kubernetes.objects import Group, Object

_RAY_PATH = "/api/healthz"
_APPLICATION = ("/readyz", "8000")
_READINESS_PERIOD_S = 5
_READINESS_TIMEOUT_S = 15
"""Longest time, in seconds, that /readyz takes (``serve_app/http/endpoint.py``)."""
_SHORTEST_START_S = 120
"""Time, in seconds, in which Ray starts on a cold node with a slow disk."""
_SHORTEST_SILENCE_S = 30
"""Time, in seconds, for which an agent of Ray may not answer on a node whose cores are busy."""


def probe_faults(group: Group) -> Iterator[str]:
    """Yield what is wrong with the probes of a pod of Ray."""
    container = group.container
    ray = (_RAY_PATH, str(group.start.get("dashboard-agent-listen-port")))
    for kind, least_s in (
        ("startupProbe", _SHORTEST_START_S),
        ("livenessProbe", _SHORTEST_SILENCE_S),
    ):
        if _asks(container, kind) != ray:
            yield f"{kind} does not ask Ray's agent (http {ray[0]}, port {ray[1]})"
        probe = container.get(kind, {})
        patience_s = probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10)
        if patience_s < least_s:
            yield f"{kind} gives up after {patience_s} s, and needs {least_s}"
    if group.is_head:
        if _asks(container, "readinessProbe") != ray:
            yield "readinessProbe does not ask Ray's agent: KubeRay deploys only to a ready head"
    else:
        yield from _faults_of_readiness(container)


def _faults_of_readiness(container: Object) -> Iterator[str]:
    probe = container.get("readinessProbe", {})
    if _asks(container, "readinessProbe") != _APPLICATION:
        yield (
            "readinessProbe does not ask the application through HAProxy (http /readyz, port "
            "8000): HAProxy alone is healthy without a replica"
        )
    if probe.get("periodSeconds", 10) > _READINESS_PERIOD_S:
        yield (
            "readinessProbe asks too rarely (periodSeconds): an upgrade interrupts HTTP for "
            "one period, since KubeRay moves traffic before the pods are ready"
        )
    if probe.get("timeoutSeconds", 1) < _READINESS_TIMEOUT_S:
        yield f"readinessProbe gives /readyz less than {_READINESS_TIMEOUT_S} s"


def _asks(container: Object, kind: str) -> tuple[str, str] | None:
    """Return path and port of a probe, or None if it asks nothing over HTTP."""
    action = container.get(kind, {}).get("httpGet")
    if action is None:
        return None
    ports = {one.get("name"): one["containerPort"] for one in container.get("ports", [])}
    return action.get("path", "/"), str(ports.get(action["port"], action["port"]))
