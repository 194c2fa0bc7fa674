"""How many replicas, nodes and ingest actors process a run in a given time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ingest.scaling.placement import count_nodes
from ingest.scaling.plan_inputs import ControlPlane, Instance, Profile
from ingest.scaling.simulation_inputs import StageModel
from ingest.units import format_duration
from serve_app.config import AppConfig, QueueConfig, ScalingConfig
from serve_app.errors import InvalidConfig
from serve_app.models.engines.network import EXACT, Pair

_MAX_ACTORS = 20_000
"""Most replicas of a plan. Source: actors in one cluster of Ray's own tests of its scale, by
release/benchmarks/README.md of its repository."""
_MAX_LOAD = 0.8
"""Share of a measured limit of the control plane that a plan uses at most."""
_PERMITS_PER_SLOT = 1.5
"""Jobs in flight per image being processed, so that no thread waits for the queue."""
_MIN_PERMITS = 64
_THREADS = (2, 1)
"""Threads and CPUs of a replica that are tried. Smaller replicas leave smaller gaps on a node."""
_WORTHWHILE = 0.98
"""Nodes for smaller replicas, relative to those for larger ones, below which they are chosen. There
are twice as many of them, each with the memory of a model."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a plan is asked for."""

    images: int
    deadline_s: float
    instance: Instance
    model: str
    pair: Pair = EXACT
    """Engine and precision that run the model."""
    spot: bool = False
    price_per_hour: float | None = None
    """US dollars per node-hour. None: the price in the table."""
    spot_fraction: float | None = None
    """Spot price divided by the on-demand price. None: that of the instance's family."""
    time_factor: float | None = None
    """Seconds on the instance divided by those of the profile. None: the family's factor."""
    node_start_s: float = 120.0
    node_cpus: float | None = None
    """CPUs that Ray offers on a node. None: the instance's vCPUs, as ``ray up`` does it."""

    @property
    def offered_cpus(self) -> float:
        """CPUs that Ray offers on a node."""
        return self.instance.vcpus if self.node_cpus is None else self.node_cpus


@dataclass(frozen=True, slots=True)
class ImageTimes:
    """Seconds that one thread of the instance needs per image."""

    segment_s: float
    """Seconds in the model."""
    pixels_s: float
    """Seconds for everything else."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """The replicas, nodes and ingest actors that process a run in a target time."""

    target_s: float
    images_per_s: float
    pipeline: StageModel
    segmenter: StageModel
    replicas: dict[str, int]
    """Maximum number of replicas of each stage."""
    nodes: int
    fixed_cpus: tuple[float, ...]
    """CPUs of HttpApi and of the ingest actor on each node that has one."""
    consumers: int
    """Number of ingest actors."""
    permits_each: int
    """Jobs in flight per ingest actor."""

    @property
    def ongoing_each(self) -> int:
        """Jobs per pipeline replica, which holds their pixels while they wait for the model too."""
        return math.ceil(self.consumers * self.permits_each / self.replicas[self.pipeline.name])


def image_times(request: PlanRequest, profile: Profile) -> ImageTimes:
    """Return the seconds of an image on the instance, whose CPUs Ray shares with the replicas."""
    factor = request.time_factor or request.instance.family.time_factor
    factor *= max(1.0, request.offered_cpus / request.instance.usable_cpus)
    return ImageTimes(
        segment_s=profile.segment(request.model, request.pair) * factor,
        pixels_s=(profile.pixels_s + profile.overhead_s) * factor,
    )


def choose_stages(
    request: PlanRequest, control: ControlPlane, times: ImageTimes
) -> tuple[StageModel, StageModel]:
    """Return the pipeline and the segmenter with the number of threads that needs fewer nodes."""
    # A node holds at least one replica of each of the two stages.
    candidates = [
        _stage_models(times, threads) for threads in _THREADS if 2 * threads <= request.offered_cpus
    ]
    if not candidates:
        raise InvalidConfig(
            f"{request.instance.name} has too few CPUs for a replica of each stage "
            f"({request.offered_cpus:g}). Choose a larger --instance"
        )
    chosen, *smaller = candidates
    nodes = size_run(request, control, chosen, request.deadline_s).nodes
    for stages in smaller:
        actors, consumers = _count_actors(control, stages, _rate(request, request.deadline_s))
        if sum(actors.values()) + consumers > _MAX_ACTORS:
            continue
        needed = size_run(request, control, stages, request.deadline_s).nodes
        if needed < _WORTHWHILE * nodes:
            chosen, nodes = stages, needed
    return chosen


def size_run(
    request: PlanRequest,
    control: ControlPlane,
    stages: tuple[StageModel, StageModel],
    target_s: float,
) -> Sizing:
    """Return what it takes to process all images in the target time at a steady rate.

    Raises:
        InvalidConfig: It takes more replicas than one cluster can have.
    """
    images_per_s = _rate(request, target_s)
    replicas, consumers = _count_actors(control, stages, images_per_s)
    if (actors := sum(replicas.values()) + consumers) > _MAX_ACTORS:
        deadline = format_duration(request.deadline_s)
        raise InvalidConfig(
            f"{request.images:,} images within {deadline} take {actors:,} "
            f"replicas on {request.instance.name}. Ray itself is tested with {_MAX_ACTORS:,} in "
            "one cluster. Allow more time, or plan several clusters with a part of the images each"
        )
    slots = sum(replicas[stage.name] * stage.slots for stage in stages)
    in_flight = max(_MIN_PERMITS * consumers, math.ceil(_PERMITS_PER_SLOT * slots))
    http = AppConfig.load({}).http
    fixed_cpus = [QueueConfig.CONSUMER_CPUS] * consumers
    fixed_cpus[0] += http.replicas * http.num_cpus
    return Sizing(
        target_s=target_s,
        images_per_s=images_per_s,
        pipeline=stages[0],
        segmenter=stages[1],
        replicas=replicas,
        nodes=count_nodes(
            list(replicas.values()),
            [stage.cpus for stage in stages],
            request.offered_cpus,
            fixed_cpus,
        ),
        fixed_cpus=tuple(fixed_cpus),
        consumers=consumers,
        permits_each=math.ceil(in_flight / consumers),
    )


def _rate(request: PlanRequest, target_s: float) -> float:
    """Return the images per second of a run that takes a time."""
    return request.images / (target_s - ScalingConfig().upscale_delay_s)


def _count_actors(
    control: ControlPlane, stages: tuple[StageModel, StageModel], images_per_s: float
) -> tuple[dict[str, int], int]:
    """Return the replicas of each stage and the number of ingest actors for a rate."""
    replicas = {s.name: math.ceil(images_per_s * s.seconds_per_image) for s in stages}
    most_each = _MAX_LOAD * min(control.ingest_per_s, control.handle_calls_per_s)
    return replicas, math.ceil(images_per_s / most_each)


def _stage_models(times: ImageTimes, threads: int) -> tuple[StageModel, StageModel]:
    """Return the pipeline and the segmenter with a number of threads, each with a CPU."""
    pipeline = StageModel(
        "CutoutPipeline",
        times.pixels_s / threads,
        # Images that wait for the model keep none of the pipeline's threads busy.
        threads * (1 + times.segment_s / times.pixels_s),
        cpus=threads,
    )
    segmenter = StageModel("Segmenter", times.segment_s / threads, threads, cpus=threads)
    return pipeline, segmenter
