"""A simulation of a run: its backlog, replicas and nodes over time, under the real policy.

Between two events (a replica or a node becomes ready, a node is lost) images flow at the rate of
the slowest part. ``Scaler`` decides, as it does in the cluster. The delays and bounds that Serve
adds are modelled here, and a test compares them with Serve's own code.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from ingest.scaling.placement import Placement, count_nodes
from ingest.scaling.scaler import BacklogReading, Scaler
from ingest.scaling.simulation_inputs import ClusterModel, OfferedLoad, ScalingRules, StageModel
from ingest.scaling.timeline import SimulatedState, Timeline

_EPSILON = 1e-9


class ScalingDelays:
    """Serve's delays: a decision takes effect once its direction has lasted long enough."""

    def __init__(self, up_s: float, down_s: float) -> None:
        self._up_s = up_s
        self._down_s = down_s
        self._since_s: float | None = None
        self._up = False

    def apply(self, desired: int, target: int, now_s: float) -> int:
        """Return the new target that follows from the desired number of replicas."""
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
    delays: ScalingDelays
    target: int
    running: int = 0
    starting: int = 0
    ongoing: float = 0.0

    @property
    def images_per_s(self) -> float:
        return self.running / self.stage.seconds_per_image

    @property
    def placed(self) -> int:
        return self.running + self.starting


class Simulation:
    """A simulation of one run. Times are in seconds since its beginning."""

    def __init__(
        self,
        stages: tuple[StageModel, ...],
        cluster: ClusterModel,
        rules: ScalingRules,
        load: OfferedLoad,
        *,
        read: Callable[[float], float] = lambda backlog: backlog,
    ) -> None:
        """Make a simulation.

        Args:
            stages: The deployments in the order in which an image passes them. The first one holds
                an image until all of them are done with it.
            cluster: The nodes that they run on.
            rules: How the number of replicas is decided.
            load: The messages to process.
            read: Function that returns SQS's approximate count for the true backlog.
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
                ScalingDelays(rules.upscale_delay_s, rules.downscale_delay_s),
                stage.min_replicas,
                running=stage.min_replicas,
            )
            for stage in stages
        ]
        self._nodes = Placement(
            cluster.node_cpus, [stage.cpus for stage in stages], cluster.fixed_cpus
        )
        for _ in range(cluster.min_nodes):
            self._nodes.add_node()
        for index, stage in enumerate(stages):
            for _ in range(stage.min_replicas):
                while not self._nodes.place(index):
                    self._nodes.add_node()
        self._nodes_starting = 0
        self._counted: tuple[int, ...] = ()
        """The replicas that the last count of new nodes was for."""
        self._new_nodes = 0
        self._idle_since_s: float | None = None
        self._events: list[tuple[float, str, int]] = []
        self._backlog = load.backlog
        self._reading: BacklogReading | None = None
        self._losses = 0.0
        self._timeline = Timeline()

    def run(self, until_s: float, step_s: float = 1.0, *, stop_when_drained: bool) -> Timeline:
        """Return the course of the run until a time, or until the backlog is empty.

        Args:
            until_s: Time at which the simulation ends at the latest.
            step_s: Resolution in seconds.
            stop_when_drained: Whether an empty backlog ends the simulation.
        """
        timeline, now_s = self._timeline, 0.0
        while now_s < until_s:
            self._apply_events(now_s)
            self._decide(now_s)
            self._place_replicas(now_s)
            self._adjust_nodes(now_s)
            images_per_s = self._process_images(now_s, step_s)
            self._lose_nodes(now_s, step_s)
            timeline.node_hours += (len(self._nodes) + self._nodes_starting) * step_s / 3600
            timeline.states.append(self._state(now_s, images_per_s))
            now_s += step_s
            if self._backlog < _EPSILON and timeline.drained_at_s is None:
                timeline.drained_at_s = now_s
                if stop_when_drained:
                    timeline.states.append(self._state(now_s, 0.0))
                    break
        return timeline

    def _apply_events(self, now_s: float) -> None:
        while self._events and self._events[0][0] <= now_s:
            _, kind, index = heapq.heappop(self._events)
            if kind == "node":
                self._nodes_starting -= 1
                self._nodes.add_node()
            elif self._deployments[index].starting:
                # If none is starting, the replica was removed before it was ready.
                self._deployments[index].starting -= 1
                self._deployments[index].running += 1

    def _decide(self, now_s: float) -> None:
        if self._reading is None or now_s - self._reading.at_s >= self._rules.read_period_s:
            counted = round(self._read(self._backlog))
            in_flight = min(counted, round(self._load.permits))
            self._reading = BacklogReading(counted - in_flight, in_flight, now_s)
        for index, item in enumerate(self._deployments):
            desired = item.scaler.decide(self._reading, item.ongoing, item.target, now_s)
            target = item.delays.apply(desired, item.target, now_s)
            item.target = max(item.stage.min_replicas, min(self._rules.max_replicas, target))
            surplus = max(0, item.placed - item.target)
            cancelled = min(surplus, item.starting)
            item.starting -= cancelled
            item.running -= surplus - cancelled
            for _ in range(surplus):
                self._nodes.give_up(index)

    def _place_replicas(self, now_s: float) -> None:
        """Start the wanted replicas that fit on the nodes, in proportion to what is wanted."""
        ready_at_s = now_s + self._cluster.replica_start_s
        waiting = {
            index for index, item in enumerate(self._deployments) if item.placed < item.target
        }
        while waiting:
            index = min(waiting, key=self._share_placed)
            item = self._deployments[index]
            if not self._nodes.place(index):
                waiting.discard(index)
                continue
            item.starting += 1
            heapq.heappush(self._events, (ready_at_s, "replica", index))
            if item.placed == item.target:
                waiting.discard(index)

    def _share_placed(self, index: int) -> float:
        item = self._deployments[index]
        return item.placed / item.target

    def _adjust_nodes(self, now_s: float) -> None:
        """Start nodes for the replicas that fit on none, and remove those that stay empty."""
        cluster = self._cluster
        missing = tuple(max(0, item.target - item.placed) for item in self._deployments)
        have = len(self._nodes) + self._nodes_starting
        wanted = self._nodes_for(missing) - self._nodes_starting
        for _ in range(min(wanted, cluster.max_nodes - have)):
            self._nodes_starting += 1
            heapq.heappush(self._events, (now_s + cluster.node_start_s, "node", 0))
        surplus = min(self._nodes.empty_nodes, have - cluster.min_nodes)
        if any(missing) or surplus <= 0:
            self._idle_since_s = None
        elif self._idle_since_s is None:
            self._idle_since_s = now_s
        elif now_s - self._idle_since_s >= cluster.node_idle_s:
            for _ in range(surplus):
                self._nodes.remove_empty_node()
            self._idle_since_s = None

    def _nodes_for(self, replicas: tuple[int, ...]) -> int:
        """Return the number of new nodes that replicas of each stage need."""
        if self._counted != replicas:
            cpus = [item.stage.cpus for item in self._deployments]
            self._counted = replicas
            self._new_nodes = count_nodes(replicas, cpus, self._cluster.node_cpus)
        return self._new_nodes

    def _process_images(self, now_s: float, step_s: float) -> float:
        """Move one step's images from the backlog through all stages and return their rate."""
        load = self._load
        self._backlog += load.arrivals(now_s) * step_s
        capacity = min([load.max_images_per_s, *(item.images_per_s for item in self._deployments)])
        done = min(self._backlog, capacity * step_s)
        self._backlog -= done
        images_per_s = done / step_s
        weight = min(1.0, step_s / self._rules.look_back_s)
        for item, ongoing in zip(self._deployments, self._ongoing(images_per_s), strict=True):
            item.ongoing += weight * (ongoing - item.ongoing)
        return images_per_s

    def _ongoing(self, images_per_s: float) -> list[float]:
        """Return the ongoing requests of each stage, by Little's law.

        While messages wait, every permit is in use. Jobs that no stage works on wait before the
        slowest stage, and the first stage holds them all.
        """
        busy = [
            images_per_s * item.stage.seconds_per_image * item.stage.slots
            for item in self._deployments
        ]
        if self._backlog < _EPSILON:
            return busy
        waiting = max(0.0, min(self._backlog, self._load.permits) - max(busy))
        slowest = min(range(len(busy)), key=lambda index: self._deployments[index].images_per_s)
        return [
            value + (waiting if index in (0, slowest) else 0.0) for index, value in enumerate(busy)
        ]

    def _lose_nodes(self, now_s: float, step_s: float) -> None:
        self._losses += len(self._nodes) * self._cluster.losses_per_node_hour * step_s / 3600
        while self._losses >= 1 and len(self._nodes):
            self._losses -= 1
            self._timeline.lost_nodes += 1
            # The messages of a lost node return to the queue when their visibility ends.
            lost = self._nodes.lose_node()
            for item, count in zip(self._deployments, lost, strict=True):
                starting = max(0, count - item.running)
                item.starting -= starting
                item.running -= count - starting

    def _state(self, now_s: float, images_per_s: float) -> SimulatedState:
        return SimulatedState(
            now_s,
            self._backlog,
            images_per_s,
            tuple(item.target for item in self._deployments),
            tuple(item.running for item in self._deployments),
            len(self._nodes) + self._nodes_starting,
        )
