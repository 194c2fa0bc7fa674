"""A simulation of a run: backlog, replicas and nodes over time, with the real policy.

Between two events (a replica or a node is ready, a node is lost) work flows at the rate of the
slowest part. The decisions are those of ``ingest.scaling.policy.Scaler``; what Serve adds to them,
delays and bounds, is modelled here and held against Serve's own code by a test.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from ingest.scaling.scaler import BacklogReading, Goals, Scaler

_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class StageModel:
    """A deployment that every image passes."""

    name: str
    seconds_per_image: float
    """Of one replica that is fully busy."""
    slots: float
    """Ongoing requests that make a replica fully busy."""
    cpus: float
    """That one replica takes of a node."""
    min_replicas: int = 1


@dataclass(frozen=True, slots=True)
class ClusterModel:
    """What the stages run on, and how long it takes to start."""

    node_cpus: float
    max_nodes: int
    min_nodes: int = 1
    node_start_s: float = 90.0
    """From the wish for a node until Ray can place a replica on it."""
    node_idle_s: float = 300.0
    """After which a node that is not needed goes; ``idle_timeout_minutes`` of Ray's autoscaler."""
    replica_start_s: float = 10.0
    losses_per_node_hour: float = 0.0
    """Interruptions of spot nodes."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How replicas are decided: what AppConfig's ``autoscaling`` says."""

    goals: Goals
    max_replicas: int
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    look_back_s: float = 30.0
    read_period_s: float = 5.0


@dataclass(frozen=True, slots=True)
class OfferedLoad:
    """What there is to do."""

    backlog: float = 0.0
    """Messages at the beginning."""
    arrivals: Callable[[float], float] = lambda at_s: 0.0
    """Messages a second, by time."""
    permits: float = 64.0
    """Jobs in flight, over all ingest actors."""
    most_per_s: float = math.inf
    """Images a second that the ingest actors can dispatch."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The state at a time."""

    at_s: float
    backlog: float
    rate: float
    """Images a second."""
    wanted: tuple[int, ...]
    """Replicas that were decided, of each stage."""
    running: tuple[int, ...]
    nodes: int
    """That are paid for: those that start count."""


@dataclass(slots=True)
class Timeline:
    """What happened."""

    moments: list[Moment] = field(default_factory=list)
    drained_at_s: float | None = None
    """When the backlog was first empty; None if it never was."""
    node_hours: float = 0.0
    lost_nodes: int = 0

    def reversals(self, stage: int) -> int:
        """Return how often the wish for replicas turned from up to down or from down to up."""
        wanted = [moment.wanted[stage] for moment in self.moments]
        steps = [b - a for a, b in pairwise(wanted) if b != a]
        return sum(1 for a, b in pairwise(steps) if (a > 0) != (b > 0))


class Delays:
    """Serve's delays: a wish counts once it has lasted, and then as it is at that time."""

    def __init__(self, up_s: float, down_s: float) -> None:
        self._up_s = up_s
        self._down_s = down_s
        self._since_s: float | None = None
        self._up = False

    def apply(self, desired: int, target: int, now_s: float) -> int:
        """Return the target that follows from a wish."""
        if desired == target:
            self._since_s = None
            return target
        up = desired > target
        if self._since_s is None or up != self._up:
            self._since_s, self._up = now_s, up
        if now_s - self._since_s + 1e-6 < (self._up_s if up else self._down_s):
            return target
        self._since_s = None
        return desired if up or target == 1 else max(1, desired)


@dataclass(slots=True)
class _Deployment:
    stage: StageModel
    scaler: Scaler
    delays: Delays
    target: int
    running: int = 0
    starting: int = 0
    ongoing: float = 0.0

    @property
    def rate(self) -> float:
        return self.running / self.stage.seconds_per_image

    @property
    def cpus(self) -> float:
        return (self.running + self.starting) * self.stage.cpus


class Simulation:
    """One run. Times are seconds since its beginning."""

    def __init__(
        self,
        stages: tuple[StageModel, ...],
        cluster: ClusterModel,
        rules: Rules,
        load: OfferedLoad,
        *,
        read: Callable[[float], float] = lambda backlog: backlog,
    ) -> None:
        """Make a simulation.

        Args:
            stages: In the order in which an image passes them; the first holds an image for as
                long as it is in work.
            cluster: What they run on.
            rules: How replicas are decided.
            load: What there is to do.
            read: What SQS's approximate count makes of the true one.
        """
        self._cluster = cluster
        self._rules = rules
        self._load = load
        self._read = read
        self._deployments = [
            _Deployment(
                stage,
                Scaler(
                    rules.goals,
                    stage.seconds_per_image,
                    stage.slots,
                    permits=load.permits,
                    now_s=0.0,
                ),
                Delays(rules.upscale_delay_s, rules.downscale_delay_s),
                stage.min_replicas,
                running=stage.min_replicas,
            )
            for stage in stages
        ]
        self._nodes = cluster.min_nodes
        self._nodes_starting = 0
        self._idle_since_s: float | None = None
        self._events: list[tuple[float, str, int]] = []
        self._backlog = load.backlog
        self._reading: BacklogReading | None = None
        self._losses = 0.0
        self._timeline = Timeline()

    def run(self, until_s: float, step_s: float = 1.0, *, stop_when_drained: bool) -> Timeline:
        """Return what happens until a time, or until the backlog is empty.

        Args:
            until_s: The end at the latest.
            step_s: Resolution.
            stop_when_drained: Whether an empty backlog ends it.
        """
        timeline, now_s = self._timeline, 0.0
        while now_s < until_s:
            self._happen(now_s)
            self._decide(now_s)
            self._place(now_s)
            rate = self._work(now_s, step_s)
            self._lose_nodes(now_s, step_s)
            timeline.node_hours += (self._nodes + self._nodes_starting) * step_s / 3600
            timeline.moments.append(self._moment(now_s, rate))
            now_s += step_s
            if self._backlog < _EPSILON and timeline.drained_at_s is None:
                timeline.drained_at_s = now_s
                if stop_when_drained:
                    timeline.moments.append(self._moment(now_s, 0.0))
                    break
        return timeline

    def _happen(self, now_s: float) -> None:
        while self._events and self._events[0][0] <= now_s:
            _, kind, index = heapq.heappop(self._events)
            if kind == "node":
                self._nodes_starting -= 1
                self._nodes += 1
            elif self._deployments[index].starting:
                # Else it was given up while it started.
                self._deployments[index].starting -= 1
                self._deployments[index].running += 1

    def _decide(self, now_s: float) -> None:
        if self._reading is None or now_s - self._reading.at_s >= self._rules.read_period_s:
            counted = round(self._read(self._backlog))
            in_flight = min(counted, round(self._load.permits))
            self._reading = BacklogReading(counted - in_flight, in_flight, now_s)
        for item in self._deployments:
            desired = item.scaler.decide(self._reading, item.ongoing, item.target, now_s)
            target = item.delays.apply(desired, item.target, now_s)
            item.target = max(item.stage.min_replicas, min(self._rules.max_replicas, target))
            surplus = max(0, item.running + item.starting - item.target)
            given_up = min(surplus, item.starting)
            item.starting -= given_up
            item.running -= surplus - given_up

    def _place(self, now_s: float) -> None:
        """Start the replicas that fit, and nodes for those that do not."""
        cluster = self._cluster
        free = self._nodes * cluster.node_cpus - sum(item.cpus for item in self._deployments)
        while True:
            short = [
                item
                for item in self._deployments
                if item.running + item.starting < item.target and item.stage.cpus <= free + _EPSILON
            ]
            if not short:
                break
            item = min(short, key=lambda each: (each.running + each.starting) / each.target)
            item.starting += 1
            free -= item.stage.cpus
            index = self._deployments.index(item)
            heapq.heappush(self._events, (now_s + cluster.replica_start_s, "replica", index))
        wanted_cpus = sum(item.target * item.stage.cpus for item in self._deployments)
        nodes = math.ceil(wanted_cpus / cluster.node_cpus - _EPSILON)
        nodes = max(cluster.min_nodes, min(cluster.max_nodes, nodes))
        have = self._nodes + self._nodes_starting
        for _ in range(nodes - have):
            self._nodes_starting += 1
            heapq.heappush(self._events, (now_s + cluster.node_start_s, "node", 0))
        if nodes >= have:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = now_s
        elif now_s - self._idle_since_s >= cluster.node_idle_s:
            self._nodes = max(self._nodes - (have - nodes), 0)
            self._idle_since_s = None

    def _work(self, now_s: float, step_s: float) -> float:
        load = self._load
        self._backlog += load.arrivals(now_s) * step_s
        most = min([load.most_per_s, *(item.rate for item in self._deployments)])
        done = min(self._backlog, most * step_s)
        self._backlog -= done
        rate = done / step_s
        weight = min(1.0, step_s / self._rules.look_back_s)
        for item, ongoing in zip(self._deployments, self._ongoing(rate), strict=True):
            item.ongoing += weight * (ongoing - item.ongoing)
        return rate

    def _ongoing(self, rate: float) -> list[float]:
        """Return the requests in work at each stage, by Little's law.

        Where messages wait, every permit is in use: what no stage works on waits before the
        slowest one, and the first stage holds all of it.
        """
        busy = [
            rate * item.stage.seconds_per_image * item.stage.slots for item in self._deployments
        ]
        if self._backlog < _EPSILON:
            return busy
        waiting = max(0.0, min(self._backlog, self._load.permits) - max(busy))
        slowest = min(range(len(busy)), key=lambda i: self._deployments[i].rate)
        return [
            value + (waiting if index in (0, slowest) else 0.0) for index, value in enumerate(busy)
        ]

    def _lose_nodes(self, now_s: float, step_s: float) -> None:
        self._losses += self._nodes * self._cluster.losses_per_node_hour * step_s / 3600
        while self._losses >= 1 and self._nodes:
            self._losses -= 1
            share = 1 / self._nodes
            self._nodes -= 1
            self._timeline.lost_nodes += 1
            for item in self._deployments:
                # Its messages return to the queue once their visibility ends.
                item.running -= math.ceil(item.running * share - _EPSILON)

    def _moment(self, now_s: float, rate: float) -> Moment:
        return Moment(
            now_s,
            self._backlog,
            rate,
            tuple(item.target for item in self._deployments),
            tuple(item.running for item in self._deployments),
            self._nodes + self._nodes_starting,
        )
