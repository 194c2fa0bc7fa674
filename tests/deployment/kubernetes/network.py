"""Who may reach which port, by the network policies of an overlay.

Policies are evaluated as Kubernetes does: a pod that no policy selects for a direction is open, and
otherwise what any of its policies allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Literal

from ray.serve._private.constants import (
    RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT,
    RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT,
    RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT,
    RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT,
    RAY_SERVE_HAPROXY_METRICS_PORT,
    RAY_SERVE_HAPROXY_STATS_PORT,
)

from tests.deployment.kubernetes.objects import (
    Group,
    Object,
    cluster_of,
    groups_of,
    of_kind,
    ray_service,
    selects,
)

Direction = Literal["Ingress", "Egress"]


@dataclass(frozen=True)
class Peer:
    """Somebody who sends to a pod or is sent to: a pod of the cluster, or an address outside.

    Attributes:
        name: Name in errors.
        namespace: Labels of its namespace. None for an address outside.
        labels: Labels of the pod.
        address: The address outside.
        ports: Ports of the pod by name.
    """

    name: str
    namespace: Mapping[str, str] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str | None = None
    ports: Mapping[str, int] = field(default_factory=dict)


def _space(name: str, **labels: str) -> dict[str, str]:
    return {"kubernetes.io/metadata.name": name, **labels}


_STRANGERS = (
    Peer("a pod of another namespace", _space("default")),
    Peer("a pod of monitoring that is not Prometheus", _space("monitoring")),
    Peer("a pod of kuberay-system that is not the operator", _space("kuberay-system")),
    Peer("a false Prometheus", _space("x"), {"app.kubernetes.io/name": "prometheus"}),
    Peer("a false operator", _space("x"), {"app.kubernetes.io/name": "kuberay-operator"}),
    Peer("the internet", address="203.0.113.7"),
    Peer("a machine of the VPC", address="10.1.2.3"),
)
_PROMETHEUS = Peer("Prometheus", _space("monitoring"), {"app.kubernetes.io/name": "prometheus"})
_OPERATOR = Peer(
    "KubeRay's operator", _space("kuberay-system"), {"app.kubernetes.io/name": "kuberay-operator"}
)
_CLIENT = Peer("a client", _space("shop", **{"foreedge/clients": "allowed"}))
_OUTSIDERS = (*_STRANGERS, _PROMETHEUS, _OPERATOR, _CLIENT)

_RAY_METRICS = 8080
_ALLOWED = {
    8000: {"worker": {_CLIENT.name}},
    _RAY_METRICS: {"worker": {_PROMETHEUS.name}, "head": {_PROMETHEUS.name}},
    RAY_SERVE_HAPROXY_METRICS_PORT: {
        "worker": {_PROMETHEUS.name},
        "head": {_PROMETHEUS.name},
    },
    8265: {"head": {_OPERATOR.name}},
}
"""Names of those besides the pods of Foreedge who may reach a port, by port and role."""
_CLOSED = (
    6379,
    10001,
    52365,
    52366,
    52367,
    RAY_SERVE_HAPROXY_STATS_PORT,
    RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT,
    RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT,
    RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT,
    RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT,
)
"""Ports that only the pods of Foreedge may reach."""

_DESTINATIONS = (
    ("AWS", Peer("AWS", address="52.94.5.1"), 443, "TCP", True),
    ("DNS", Peer("DNS", _space("kube-system"), {"k8s-app": "kube-dns"}), 53, "UDP", True),
    ("the agent of Pod Identity", Peer("agent", address="169.254.170.23"), 80, "TCP", True),
    ("the metadata of the node", Peer("node", address="169.254.169.254"), 80, "TCP", False),
    ("the metadata of the node", Peer("node", address="169.254.169.254"), 443, "TCP", False),
    ("the internet", Peer("internet", address="203.0.113.7"), 25, "TCP", False),
)


def network_faults(objects: Sequence[Object]) -> Iterator[str]:
    """Yield who can reach what they should not, and who cannot reach what they should."""
    service = ray_service(objects)
    space = _space(service["metadata"].get("namespace", "default"))
    policies = of_kind(objects, "NetworkPolicy")
    groups = groups_of(cluster_of(service))
    peers = {group.name: _peer(group, space) for group in groups}
    for group in groups:
        own = peers[group.name]
        yield from _faults_of_ingress(own, "head" if group.is_head else "worker", policies)
        yield from _faults_of_egress(own, policies)
        for other in peers.values():
            for port in (6379, 30000, 52365, 10002):
                to, back = (
                    _allows(policies, own, "Egress", other, port, "TCP"),
                    _allows(policies, other, "Ingress", own, port, "TCP"),
                )
                if not (to and back):
                    yield f"{group.name}: it cannot reach {other.name} on port {port}"
    yield from _faults_of_redis(cluster_of(service), peers["head"], policies)
    yield from _faults_of_catalog(objects, peers, policies)


def _peer(group: Group, space: Mapping[str, str]) -> Peer:
    ports = {one["name"]: one["containerPort"] for one in group.container.get("ports", [])}
    return Peer(group.name, space, group.labels, ports=ports)


def _faults_of_ingress(own: Peer, role: str, policies: Sequence[Object]) -> Iterator[str]:
    for port in (*_ALLOWED, *_CLOSED):
        allowed = _ALLOWED.get(port, {}).get(role, set())
        for peer in (Peer("a pod of the same namespace", own.namespace), *_OUTSIDERS):
            reaches = _allows(policies, own, "Ingress", peer, port, "TCP")
            if reaches and peer.name not in allowed:
                yield f"{own.name}: {peer.name} can reach port {port}"
            if not reaches and peer.name in allowed:
                yield f"{own.name}: {peer.name} cannot reach port {port}"


def _faults_of_egress(own: Peer, policies: Sequence[Object]) -> Iterator[str]:
    for name, peer, port, protocol, wanted in _DESTINATIONS:
        reaches = _allows(policies, own, "Egress", peer, port, protocol)
        if reaches != wanted:
            yield f"{own.name}: it can{'' if reaches else 'not'} reach {name} (port {port})"


def _faults_of_redis(cluster: Object, head: Peer, policies: Sequence[Object]) -> Iterator[str]:
    options = cluster.get("gcsFaultToleranceOptions", {})
    if "redisAddress" not in options:
        return
    port = int(options["redisAddress"].rsplit(":")[-1])
    redis = Peer("Redis", address="10.1.2.3")
    if not _allows(policies, head, "Egress", redis, port, "TCP"):
        yield f"head: it cannot reach Redis on port {port}"


def _faults_of_catalog(
    objects: Sequence[Object], peers: Mapping[str, Peer], policies: Sequence[Object]
) -> Iterator[str]:
    """Yield the pods that may not reach the database of the catalog, if there is a catalog."""
    maps = [one.get("data", {}) for one in of_kind(objects, "ConfigMap")]
    if not any(name.startswith("FOREEDGE_CATALOG__") for each in maps for name in each):
        return
    database = Peer("the database", address="10.1.2.3")
    for name, own in peers.items():
        # The head runs no replica, but one policy is for all pods of the cluster.
        if not _allows(policies, own, "Egress", database, 5432, "TCP"):
            yield f"{name}: it cannot reach the database of the catalog on port 5432"


def _allows(
    policies: Sequence[Object],
    own: Peer,
    direction: Direction,
    peer: Peer,
    port: int,
    protocol: str,
) -> bool:
    """Return whether a pod may receive from a peer on its port, or send to one on the peer's."""
    selecting = [
        one["spec"]
        for one in policies
        if selects(one["spec"]["podSelector"], own.labels)
        and direction in one["spec"].get("policyTypes", ["Ingress"])
    ]
    if not selecting:
        return True
    side, others = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    target = own if direction == "Ingress" else peer
    return any(
        _matches_port(rule.get("ports"), target, port, protocol)
        and _matches_peer(rule.get(others), peer, own)
        for spec in selecting
        for rule in spec.get(side, [])
    )


def _matches_port(ports: Sequence[Object] | None, target: Peer, port: int, protocol: str) -> bool:
    if not ports:
        return True
    for one in ports:
        if one.get("protocol", "TCP") != protocol:
            continue
        if "port" not in one:
            return True
        named = one["port"]
        first = target.ports.get(named, -1) if isinstance(named, str) else int(named)
        if first <= port <= one.get("endPort", first):
            return True
    return False


def _matches_peer(rules: Sequence[Object] | None, peer: Peer, own: Peer) -> bool:
    if not rules:
        return True
    return any(_matches_one(rule, peer, own) for rule in rules)


def _matches_one(rule: Object, peer: Peer, own: Peer) -> bool:
    if "ipBlock" in rule:
        if peer.address is None:
            # What a policy says of addresses does not hold for pods of the cluster.
            return False
        address, block = ip_address(peer.address), rule["ipBlock"]
        return address in ip_network(block["cidr"]) and not any(
            address in ip_network(one) for one in block.get("except", [])
        )
    if peer.namespace is None:
        return False
    if "namespaceSelector" in rule:
        inside = selects(rule["namespaceSelector"], peer.namespace)
    else:
        inside = peer.namespace == own.namespace
    return inside and ("podSelector" not in rule or selects(rule["podSelector"], peer.labels))
