"""The profile "restricted" of Kubernetes' Pod Security Standards, and what we ask besides.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ (Linux pods).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.deployment.kubernetes.objects import (
    Group,
    Object,
    cluster_of,
    containers_of,
    groups_of,
    of_kind,
    ray_service,
)

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
_SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_PROFILES = {"RuntimeDefault", "Localhost"}
_PLACES = {"/tmp", "/home/foreedge"}
"""Folders that Ray, HAProxy and Foreedge write to, besides ``/dev/shm``."""


def security_faults(objects: Sequence[Object]) -> Iterator[str]:
    """Yield what the profile "restricted" refuses, and roots that can be written to."""
    yield from _faults_of_namespaces(objects)
    cluster = cluster_of(ray_service(objects))
    accounts = {one["metadata"]["name"]: one for one in of_kind(objects, "ServiceAccount")}
    for group in groups_of(cluster):
        yield from (f"{group.name}: {fault}" for fault in _faults_of_pod(group.pod))
        account = accounts.get(group.pod.get("serviceAccountName", ""), {})
        # The pod's own word counts. What both leave out is true.
        mounts = {"automountServiceAccountToken": True, **account, **group.pod}
        if mounts["automountServiceAccountToken"] != group.is_head:
            yield (
                f"{group.name}: automountServiceAccountToken must be {group.is_head}: the "
                "autoscaler on the head alone talks to Kubernetes"
            )
        containers = [*containers_of(group.pod), *_made_by_kuberay(group, cluster)]
        for container in containers:
            for fault in _faults_of_container(container, group.pod):
                yield f"{group.name}: {container['name']}: {fault}"


def _faults_of_namespaces(objects: Sequence[Object]) -> Iterator[str]:
    spaces = {one["metadata"]["name"]: one for one in of_kind(objects, "Namespace")}
    service = ray_service(objects)
    name = service["metadata"].get("namespace", "default")
    if name not in spaces:
        yield f"the namespace {name} is not among the objects"
        return
    labels = spaces[name]["metadata"].get("labels", {})
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
        yield f"the namespace {name} does not enforce restricted pod security"


def _made_by_kuberay(group: Group, cluster: Object) -> Iterator[Object]:
    """Yield the containers that KubeRay adds to a pod."""
    if group.is_head and cluster.get("enableInTreeAutoscaling"):
        options = cluster.get("autoscalerOptions", {})
        yield {**options, "name": "autoscaler"}


def _faults_of_pod(pod: Object) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} is set"
    for volume in pod.get("volumes", []):
        for kind in sorted(set(volume) - {"name"} - _VOLUMES):
            yield f"the volume {volume['name']} is of the kind {kind}"
    context = pod.get("securityContext", {})
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in _SAFE_SYSCTLS:
            yield f"the sysctl {sysctl['name']} is not safe"
    yield from _faults_of_options(context)


def _faults_of_options(context: Object) -> Iterator[str]:
    """Yield faults of what both a pod and a container may set."""
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in _SELINUX or selinux.get("user") or selinux.get("role"):
        yield "its SELinux options are not allowed"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in _PROFILES:
        yield "its AppArmor profile is unconfined"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "it is a process of the host"
    if context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in _PROFILES:
        yield "its seccomp profile is unconfined"
    if context.get("runAsUser") == 0:
        yield "it runs as root"


def _faults_of_container(container: Object, pod: Object) -> Iterator[str]:
    own, shared = container.get("securityContext", {}), pod.get("securityContext", {})
    context = {**shared, **own}
    yield from _faults_of_options(own)
    if own.get("privileged"):
        yield "it is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if own.get("procMount", "Default") != "Default":
        yield "its procMount is not the default"
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if context.get("seccompProfile", {}).get("type") not in _PROFILES:
        yield "it has no seccomp profile"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "it does not drop all capabilities"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "it adds capabilities"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "it has a port of the host"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "its root can be written to"
    yield from _faults_of_places(container, pod)


def _faults_of_places(container: Object, pod: Object) -> Iterator[str]:
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    mounted = {one["mountPath"]: one for one in container.get("volumeMounts", [])}
    for path in sorted(_PLACES - set(mounted)):
        yield f"{path} cannot be written to"
    for path, mount in mounted.items():
        volume = volumes.get(mount["name"])
        if volume is None:
            yield f"{path} is mounted from the volume {mount['name']}, which does not exist"
        elif path in _PLACES and (mount.get("readOnly") or "emptyDir" not in volume):
            yield f"{path} is not an emptyDir of its own"
