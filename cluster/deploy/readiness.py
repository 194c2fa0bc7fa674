"""Judgement of whether a RayService serves what it asks for."""

from __future__ import annotations

from typing import Any

from cluster.deploy.release import head_image


def active_cluster(service: dict[str, Any]) -> str | None:
    """Return the name of the RayCluster that gets the traffic, or None."""
    status = service.get("status") or {}
    return (status.get("activeServiceStatus") or {}).get("rayClusterName") or None


def why_not_ready(service: dict[str, Any], cluster: dict[str, Any] | None) -> str | None:
    """Return why a RayService does not serve what it asks for, or None if it does.

    Right after a change KubeRay still reports the cluster before as ready. So the status must be
    that of the latest generation, no upgrade may be in progress, and the cluster that gets the
    traffic must run the image.

    Args:
        service: The RayService.
        cluster: The RayCluster that gets the traffic, or None if there is none.
    """
    status = service.get("status") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or []}
    ready = conditions.get("Ready") or {"status": "Unknown", "message": "there is no status yet"}
    upgrade = conditions.get("UpgradeInProgress") or {"status": "Unknown"}
    if status.get("observedGeneration") != service["metadata"]["generation"]:
        return f"KubeRay has not looked at the change yet ({ready.get('message')})"
    if upgrade["status"] != "False":
        pending = status.get("pendingServiceStatus") or {}
        return f"the new cluster is not ready ({_describe(pending) or ready.get('message')})"
    if ready["status"] != "True":
        active = status.get("activeServiceStatus") or {}
        return f"{ready.get('message')} ({_describe(active) or 'no application is reported'})"
    if cluster is None:
        return "no RayCluster gets the traffic"
    wanted, found = (
        head_image(service["spec"]["rayClusterConfig"]),
        head_image(cluster["spec"]),
    )
    if wanted != found:
        return f"the RayCluster that gets the traffic runs {found}"
    waiting = _describe(status["activeServiceStatus"])
    return f"an application is not running ({waiting})" if waiting else None


def _describe(service_status: dict[str, Any]) -> str:
    """Return the status and the message of every application that is not running."""
    applications = service_status.get("applicationStatuses") or {}
    return "; ".join(
        f"{name}: {each.get('status')}: {each.get('message') or 'no message'}"
        for name, each in sorted(applications.items())
        if each.get("status") != "RUNNING"
    )


def is_pod_ready(pod: dict[str, Any]) -> bool:
    """Return whether a pod is ready and is not being deleted."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
