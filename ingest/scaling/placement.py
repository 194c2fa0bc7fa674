"""Nodes and the replicas on them: what fits where, as Ray counts CPUs."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

_EPSILON = 1e-9


@dataclass(slots=True, eq=False)
class _Node:
    free_cpus: float
    fixed_cpus: float
    replicas: list[int]
    """Replicas of each stage."""
    is_lost: bool = False

    @property
    def actors(self) -> int:
        """Replicas, and one more if a fixed actor lives here."""
        return sum(self.replicas) + (self.fixed_cpus > 0)


@dataclass(slots=True)
class Placement:
    """The nodes of a cluster, and the replicas on each.

    A replica lives on one node, so that CPUs which are free on two nodes do not add up. As Serve
    does, a new replica goes to the node with the most free CPUs, and a replica that is given up is
    one of the node with the fewest actors, so that nodes become empty.
    """

    node_cpus: float
    """CPUs that Ray offers on a node."""
    stage_cpus: Sequence[float]
    """CPUs that one replica of each stage occupies."""
    fixed_cpus: Sequence[float] = ()
    """CPUs of actors that are not scaled, one entry for each node that holds some."""
    _nodes: list[_Node] = field(default_factory=list)
    _homeless: list[float] = field(init=False)
    """Fixed actors that wait for a node."""
    _by_free_cpus: list[tuple[float, int, _Node]] = field(default_factory=list)
    """Heap of nodes by their free CPUs, as negative numbers. Entries that are out of date stay."""
    _entries: int = 0
    _empty_nodes: int = 0

    def __post_init__(self) -> None:
        self._homeless = list(reversed(self.fixed_cpus))

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def empty_nodes(self) -> int:
        """Nodes without any actor."""
        return self._empty_nodes

    def add_node(self) -> None:
        """Add a node. It takes fixed actors first, if some wait."""
        fixed = self._homeless.pop() if self._homeless else 0.0
        node = _Node(self.node_cpus - fixed, fixed, [0] * len(self.stage_cpus))
        self._nodes.append(node)
        self._empty_nodes += not node.actors
        self._push(node)

    def remove_empty_node(self) -> None:
        """Remove a node without any actor."""
        node = next(node for node in reversed(self._nodes) if not node.actors)
        self._nodes.remove(node)
        self._forget(node)

    def place(self, stage: int) -> bool:
        """Place a replica of a stage and return whether it fits on a node."""
        cpus = self.stage_cpus[stage]
        heap = self._by_free_cpus
        while heap and (heap[0][2].is_lost or -heap[0][0] != heap[0][2].free_cpus):
            heapq.heappop(heap)
        if not heap or cpus > -heap[0][0] + _EPSILON:
            return False
        node = heapq.heappop(heap)[2]
        self._change(node, stage, 1)
        return True

    def give_up(self, stage: int) -> None:
        """Remove a replica of a stage."""
        holders = [node for node in reversed(self._nodes) if node.replicas[stage]]
        node = min(holders, key=lambda each: each.actors)
        self._change(node, stage, -1)

    def lose_node(self) -> list[int]:
        """Remove a node with what is on it, and return its replicas of each stage."""
        node = self._nodes.pop(len(self._nodes) // 2)
        if node.fixed_cpus:
            self._homeless.append(node.fixed_cpus)
        self._forget(node)
        return node.replicas

    def _change(self, node: _Node, stage: int, count: int) -> None:
        self._empty_nodes -= not node.actors
        node.replicas[stage] += count
        node.free_cpus -= count * self.stage_cpus[stage]
        self._empty_nodes += not node.actors
        self._push(node)

    def _forget(self, node: _Node) -> None:
        self._empty_nodes -= not node.actors
        node.is_lost = True

    def _push(self, node: _Node) -> None:
        self._entries += 1
        heapq.heappush(self._by_free_cpus, (-node.free_cpus, self._entries, node))


def count_nodes(
    replicas: Sequence[int],
    stage_cpus: Sequence[float],
    node_cpus: float,
    fixed_cpus: Sequence[float] = (),
) -> int:
    """Return the number of nodes that hold these replicas of each stage and the fixed actors.

    Raises:
        ValueError: A replica or a fixed actor fits on no node.
    """
    if max([*stage_cpus, *fixed_cpus]) > node_cpus + _EPSILON:
        raise ValueError(f"an actor needs more than the {node_cpus:g} CPUs of a node")
    placement = Placement(node_cpus, stage_cpus, fixed_cpus)
    for _ in fixed_cpus:
        placement.add_node()
    # The largest first, which leaves the smallest gaps.
    for stage in sorted(range(len(stage_cpus)), key=lambda index: -stage_cpus[index]):
        for _ in range(replicas[stage]):
            while not placement.place(stage):
                placement.add_node()
    return len(placement)
