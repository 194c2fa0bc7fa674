"""``foreedge plan``: what a run needs of nodes, replicas, hours and money.

From measured seconds for an image (a profile), prices (a table with a date), and a simulation of
the run with the real autoscaling policy. What is assumed and not measured is said so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ingest.scaling.plan_inputs import Instance, Prices, Profile, find_instance
from ingest.scaling.scaler import Goals
from ingest.scaling.simulation import (
    ClusterModel,
    OfferedLoad,
    Rules,
    Simulation,
    StageModel,
    Timeline,
)
from serve_app.config import AppConfig, ScalingConfig
from serve_app.errors import InvalidConfig

LEAST_DEADLINE_S = 300.0
_STEPS = 8_000
_FITS = 12
_LOAD_OF_LIMIT = 0.8
"""Share of a measured limit of the control plane that is planned with."""
_PERMITS_FOR_SLOTS = 1.5
"""Jobs in flight for each image that is worked on, so that no thread waits for the queue."""
_SPOT_LOSSES_PER_NODE_HOUR = 0.01
"""An assumption; AWS's Spot Instance Advisor shows that of a type."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What is asked for."""

    images: int
    deadline_s: float
    instance: Instance
    model: str
    spot: bool = False
    price_per_hour: float | None = None
    """Of a node; None: the table's."""
    spot_fraction: float | None = None
    time_factor: float | None = None
    """None: the family's."""
    node_start_s: float = 120.0


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """What it takes."""

    request: PlanRequest
    profile: Profile
    prices: Prices
    segment_s: float
    """Of one thread for an image, on the instance."""
    pixels_s: float
    price_per_hour: float
    settings: dict[str, Any]
    """Of AppConfig, to run it so."""
    replicas: dict[str, int]
    """The most of each deployment."""
    nodes: int
    timeline: Timeline
    step_s: float
    images_per_s: float
    """At the peak."""
    limits: dict[str, tuple[float, float]]
    """What the control plane has to do, and what one process of it was measured to do."""

    @property
    def hours(self) -> float:
        """From the first message to the last."""
        return (self.timeline.drained_at_s or math.inf) / 3600

    @property
    def utilisation(self) -> float:
        """Share of the paid CPUs that the work takes."""
        work_s = self.request.images * (self.segment_s + self.pixels_s)
        return work_s / (self.timeline.node_hours * 3600 * self.request.instance.usable_cpus)

    @property
    def compute_cost(self) -> float:
        """US dollars, for nodes."""
        return self.timeline.node_hours * self.price_per_hour

    @property
    def request_cost(self) -> float:
        """US dollars, for requests to S3 and SQS."""
        return self.request.images * self.prices.requests.per_image


def make_plan(request: PlanRequest, profile: Profile, prices: Prices) -> CapacityPlan:
    """Return what a run takes.

    The drain target is shortened until the simulated run, with the starts of its nodes and the
    losses of spot ones, ends within the deadline.

    Raises:
        InvalidConfig: The deadline cannot be met.
    """
    if request.deadline_s < LEAST_DEADLINE_S:
        raise InvalidConfig(f"--deadline must be at least {LEAST_DEADLINE_S:.0f} s")
    family = request.instance.family
    factor = request.time_factor or family.time_factor
    segment_s = profile.segment(request.model) * factor
    pixels_s = (profile.pixels_s + profile.overhead_s) * factor
    target_s = request.deadline_s
    for _ in range(_FITS):
        plan = _simulate(request, profile, prices, segment_s, pixels_s, target_s)
        late_s = plan.hours * 3600 - request.deadline_s
        if late_s <= 0:
            return plan
        target_s -= max(0.02 * request.deadline_s, 1.05 * late_s)
        if target_s < request.deadline_s / 8:
            break
    started_s = ScalingConfig().upscale_delay_s + request.node_start_s + profile.replica_start_s
    raise InvalidConfig(
        f"{request.images:,} images cannot be done within {request.deadline_s:.0f} s: "
        f"{started_s:.0f} s pass before the nodes work; allow more time"
    )


def _simulate(
    request: PlanRequest,
    profile: Profile,
    prices: Prices,
    segment_s: float,
    pixels_s: float,
    target_s: float,
) -> CapacityPlan:
    base = AppConfig.load({}).model_copy(update={"queue": None})
    scaling = ScalingConfig()
    threads, pixel_threads = base.segmenter.threads, base.pipeline.threads
    pipeline = StageModel(
        "CutoutPipeline",
        pixels_s / pixel_threads,
        pixel_threads * (1 + segment_s / pixels_s),
        cpus=pixel_threads,
    )
    segmenter = StageModel("Segmenter", segment_s / threads, threads, cpus=threads)
    stages = (pipeline, segmenter)
    cpus = request.instance.usable_cpus
    if cpus < max(stage.cpus for stage in stages):
        raise InvalidConfig(f"{request.instance.name} has too few CPUs for a replica: {cpus:g}")
    work_s = target_s - scaling.upscale_delay_s
    per_s = request.images / work_s
    replicas = {s.name: math.ceil(per_s * s.seconds_per_image) for s in stages}
    nodes = math.ceil(sum(replicas[s.name] * s.cpus for s in stages) / cpus)
    slots = sum(replicas[s.name] * s.slots for s in stages)
    control = profile.control_plane
    consumers = math.ceil(per_s / (control.ingest_per_s * _LOAD_OF_LIMIT))
    in_work = max(64 * consumers, math.ceil(_PERMITS_FOR_SLOTS * slots))
    permits_each = math.ceil(in_work / consumers)
    # A pipeline holds the pixels of all its images, also of those that wait for the model.
    ongoing_each = math.ceil(in_work / replicas[pipeline.name])
    rules = Rules(
        Goals(work_s, scaling.answer_target_s, 20, scaling.away_after_s),
        max_replicas=max(replicas.values()),
        upscale_delay_s=scaling.upscale_delay_s,
        downscale_delay_s=scaling.downscale_delay_s,
        look_back_s=scaling.look_back_s,
        read_period_s=scaling.read_period_s,
    )
    # There is at most one ingest actor on a node, and there are always as many as are configured.
    cluster = ClusterModel(
        cpus,
        max_nodes=max(nodes, consumers),
        min_nodes=consumers,
        node_start_s=request.node_start_s,
        replica_start_s=profile.replica_start_s,
        losses_per_node_hour=_SPOT_LOSSES_PER_NODE_HOUR if request.spot else 0.0,
    )
    load = OfferedLoad(
        float(request.images),
        permits=consumers * permits_each,
        most_per_s=consumers * control.ingest_per_s,
    )
    step_s = max(0.5, request.deadline_s / _STEPS)
    timeline = Simulation(stages, cluster, rules, load).run(
        3 * request.deadline_s, step_s, stop_when_drained=True
    )
    return CapacityPlan(
        request=request,
        profile=profile,
        prices=prices,
        segment_s=segment_s,
        pixels_s=pixels_s,
        price_per_hour=_price(request),
        settings={
            "models": [request.model],
            "queue": {"consumers": consumers, "max_in_flight": permits_each},
            "pipeline": {
                "threads": pixel_threads,
                "num_cpus": pixel_threads,
                "max_ongoing": max(base.pipeline.max_ongoing, ongoing_each),
                "max_decoded_pixels": max(
                    base.pipeline.max_decoded_pixels, ongoing_each * profile.image_pixels
                ),
            },
            "segmenter": {"threads": threads, "num_cpus": threads},
            "autoscaling": {
                "max_replicas": max(replicas.values()),
                "drain_target_s": round(target_s),
                "segment_s": round(segment_s, 4),
                "pixels_s": round(pixels_s, 4),
            },
        },
        replicas=replicas,
        nodes=max(moment.nodes for moment in timeline.moments),
        timeline=timeline,
        step_s=step_s,
        images_per_s=max(moment.rate for moment in timeline.moments),
        limits={
            "messages/s of an ingest actor": (per_s / consumers, control.ingest_per_s),
            "handle calls/s of an ingest actor": (per_s / consumers, control.handle_calls_per_s),
            "handle calls/s of a pipeline": (
                per_s / replicas[pipeline.name],
                control.handle_calls_per_s,
            ),
        },
    )


def _price(request: PlanRequest) -> float:
    price = request.price_per_hour or request.instance.on_demand_per_hour
    if request.spot and request.price_per_hour is None:
        return price * (request.spot_fraction or request.instance.family.spot_fraction)
    return price


def compare(request: PlanRequest, profile: Profile, prices: Prices) -> list[CapacityPlan]:
    """Return the plans of the same run on the same size of every family."""
    size = request.instance.name.partition(".")[2]
    plans = []
    for name, family in prices.families.items():
        if size not in family.sizes:
            continue
        instance = find_instance(f"{name}.{size}", prices)
        # What was given is of the instance that was asked for.
        asked = replace(request, instance=instance, price_per_hour=None, time_factor=None)
        plans.append(make_plan(request if instance == request.instance else asked, profile, prices))
    return plans
