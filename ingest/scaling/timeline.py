"""The course of a simulated run."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class SimulatedState:
    """The queue, the replicas and the nodes at one moment."""

    at_s: float
    """Seconds since the beginning."""
    backlog: float
    images_per_s: float
    wanted: tuple[int, ...]
    """Replicas of each stage that the autoscaler has decided on."""
    running: tuple[int, ...]
    """Replicas of each stage that have started."""
    nodes: int
    """Nodes being paid for, including those still starting."""


@dataclass(slots=True)
class Timeline:
    """The states of a simulated run, and what they add up to."""

    states: list[SimulatedState] = field(default_factory=list)
    drained_at_s: float | None = None
    """Time at which the backlog was first empty. None if it never was."""
    node_hours: float = 0.0
    lost_nodes: int = 0

    def reversals(self, stage: int) -> int:
        """Return how often the wanted replicas of a stage turned from rising to falling or back."""
        wanted = [state.wanted[stage] for state in self.states]
        steps = [after - before for before, after in pairwise(wanted) if after != before]
        return sum((before > 0) != (after > 0) for before, after in pairwise(steps))
