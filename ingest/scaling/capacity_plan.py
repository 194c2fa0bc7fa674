"""The plan of a run: the nodes, replicas, hours and dollars that it takes.

It follows from measured seconds per image (a profile), dated prices, and a simulation of the run
under the real autoscaling policy. Whatever is assumed instead of measured is named in the plan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ingest.scaling.plan_inputs import Prices, Profile, find_instance
from ingest.scaling.scaler import Goals
from ingest.scaling.simulation import Simulation
from ingest.scaling.simulation_inputs import ClusterModel, OfferedLoad, ScalingRules
from ingest.scaling.sizing import (
    ImageTimes,
    PlanRequest,
    Sizing,
    choose_stages,
    image_times,
    size_run,
)
from ingest.scaling.timeline import Timeline
from ingest.units import format_duration
from serve_app.config import AppConfig, ScalingConfig
from serve_app.errors import InvalidConfig
from serve_app.models.engines.network import EXACT

MIN_DEADLINE_S = 300.0

_STEPS = 8_000
_ATTEMPTS = 12
BYTES_PER_PIXEL = 17
"""Charge of a usual JPEG image in ``pipeline.max_decoded_bytes`` (``imaging.footprint``)."""
_SPOT_LOSSES_PER_NODE_HOUR = 0.01
"""An assumption. AWS's Spot Instance Advisor has the figure of each instance type."""


@dataclass(frozen=True, slots=True)
class CapacityPlan:
    """What a run takes, with the settings that run it that way."""

    request: PlanRequest
    profile: Profile
    prices: Prices
    times: ImageTimes
    sizing: Sizing
    timeline: Timeline
    settings: dict[str, Any]
    """Settings of AppConfig."""

    @property
    def replicas(self) -> dict[str, int]:
        """Maximum number of replicas of each stage."""
        return self.sizing.replicas

    @property
    def nodes(self) -> int:
        """Maximum number of nodes."""
        return max(state.nodes for state in self.timeline.states)

    @property
    def images_per_s(self) -> float:
        """Images per second at the peak."""
        return max(state.images_per_s for state in self.timeline.states)

    @property
    def hours(self) -> float:
        """Hours from the first message to the last result."""
        return (self.timeline.drained_at_s or math.inf) / 3600

    @property
    def utilisation(self) -> float:
        """Share of the CPU time that Ray offers which the images use."""
        work_s = self.request.images * (self.times.segment_s + self.times.pixels_s)
        return work_s / (self.timeline.node_hours * 3600 * self.request.offered_cpus)

    @property
    def price_per_hour(self) -> float:
        """US dollars per node-hour."""
        request = self.request
        if request.price_per_hour is not None:
            return request.price_per_hour
        price = request.instance.on_demand_per_hour
        if request.spot:
            return price * (request.spot_fraction or request.instance.family.spot_fraction)
        return price

    @property
    def compute_cost(self) -> float:
        """US dollars for the nodes."""
        return self.timeline.node_hours * self.price_per_hour

    @property
    def request_cost(self) -> float:
        """US dollars for requests to S3 and SQS."""
        return self.request.images * self.prices.requests.per_image

    @property
    def node_cost_per_thousand(self) -> float:
        """US dollars for the nodes of 1,000 images."""
        return self.compute_cost * 1000 / self.request.images

    @property
    def request_cost_per_thousand(self) -> float:
        """US dollars for the requests of 1,000 images."""
        return self.request_cost * 1000 / self.request.images

    @property
    def images_per_s_per_vcpu(self) -> float:
        """Images per second of one vCPU at the peak."""
        return self.images_per_s / (self.nodes * self.request.instance.vcpus)

    @property
    def limits(self) -> dict[str, tuple[float, float]]:
        """What one process of the control plane must do, and the most that was measured."""
        measured, sizing = self.profile.control_plane, self.sizing
        per_consumer = sizing.images_per_s / sizing.consumers
        per_pipeline = sizing.images_per_s / sizing.replicas[sizing.pipeline.name]
        return {
            "messages/s of an ingest actor": (per_consumer, measured.ingest_per_s),
            "handle calls/s of an ingest actor": (per_consumer, measured.handle_calls_per_s),
            "handle calls/s of a pipeline": (per_pipeline, measured.handle_calls_per_s),
        }


def make_plan(request: PlanRequest, profile: Profile, prices: Prices) -> CapacityPlan:
    """Return what a run takes.

    The time that the replicas are sized for is shortened until the simulated run, in which nodes
    take time to start and spot nodes are lost, ends before the deadline.

    Raises:
        InvalidConfig: The deadline cannot be met, the instance is too small for a replica or cannot
            run the engine, or the profile has no time for the model with it.
    """
    if request.deadline_s < MIN_DEADLINE_S:
        raise InvalidConfig(f"--deadline must be at least {format_duration(MIN_DEADLINE_S)}")
    if request.node_cpus is not None and request.node_cpus > request.instance.vcpus:
        raise InvalidConfig(
            f"--node-cpus: {request.instance.name} has {request.instance.vcpus} vCPUs, fewer than "
            f"{request.node_cpus:g}"
        )
    if (reason := request.instance.family.why_not(request.pair, profile)) is not None:
        raise InvalidConfig(
            f"--engine: {request.pair} cannot be planned on {request.instance.name} "
            f"({request.instance.family.processor}): {reason}"
        )
    times = image_times(request, profile)
    stages = choose_stages(request, profile.control_plane, times)
    target_s = request.deadline_s
    for _ in range(_ATTEMPTS):
        sizing = size_run(request, profile.control_plane, stages, target_s)
        timeline = _simulate(request, profile, sizing)
        late_s = (timeline.drained_at_s or math.inf) - request.deadline_s
        if late_s <= 0:
            settings = _settings(request, profile, times, sizing)
            return CapacityPlan(request, profile, prices, times, sizing, timeline, settings)
        target_s -= max(0.02 * request.deadline_s, 1.05 * late_s)
        if target_s < request.deadline_s / 8:
            break
    started_s = ScalingConfig().upscale_delay_s + request.node_start_s + profile.replica_start_s
    raise InvalidConfig(
        f"{request.images:,} images cannot be done within {format_duration(request.deadline_s)}, "
        f"because {format_duration(started_s)} pass before the nodes work. Allow more time"
    )


def compare_families(request: PlanRequest, profile: Profile, prices: Prices) -> list[CapacityPlan]:
    """Return the plans of the same run on the same instance size of every family that can do it."""
    size = request.instance.name.partition(".")[2]
    plans = []
    for name, family in prices.families.items():
        if size not in family.sizes or family.why_not(request.pair, profile) is not None:
            continue
        instance = find_instance(f"{name}.{size}", prices)
        # A given price or factor belongs to the requested instance alone.
        other = replace(request, instance=instance, price_per_hour=None, time_factor=None)
        asked = request if instance == request.instance else other
        plans += _plan_if_possible(asked, profile, prices)
    return plans


def compare_engines(request: PlanRequest, profile: Profile, prices: Prices) -> list[CapacityPlan]:
    """Return the plans of the same run with every measured pair that can do it on the instance."""
    plans = []
    for pair in profile.pairs():
        measured = profile.names(pair)
        is_measured = request.model in measured or f"{request.model}-shaped" in measured
        if is_measured and request.instance.family.why_not(pair, profile) is None:
            plans += _plan_if_possible(replace(request, pair=pair), profile, prices)
    return plans


def _plan_if_possible(request: PlanRequest, profile: Profile, prices: Prices) -> list[CapacityPlan]:
    """Return the plan of a run, or nothing if the run cannot be done that way."""
    try:
        return [make_plan(request, profile, prices)]
    except InvalidConfig:
        # A slower processor or engine may take more replicas or time than there can be.
        return []


def _simulate(request: PlanRequest, profile: Profile, sizing: Sizing) -> Timeline:
    """Return the course of the run with the replicas and nodes of a sizing."""
    scaling = ScalingConfig()
    drain_s = sizing.target_s - scaling.upscale_delay_s
    rules = ScalingRules(
        Goals(drain_s, scaling.answer_target_s, 20, scaling.away_after_s),
        max_replicas=max(sizing.replicas.values()),
        upscale_delay_s=scaling.upscale_delay_s,
        downscale_delay_s=scaling.downscale_delay_s,
        look_back_s=scaling.look_back_s,
        read_period_s=scaling.read_period_s,
    )
    # A node holds at most one ingest actor, and their number is fixed.
    cluster = ClusterModel(
        request.offered_cpus,
        max_nodes=sizing.nodes,
        min_nodes=sizing.consumers,
        node_start_s=request.node_start_s,
        replica_start_s=profile.replica_start_s,
        fixed_cpus=sizing.fixed_cpus,
        losses_per_node_hour=_SPOT_LOSSES_PER_NODE_HOUR if request.spot else 0.0,
    )
    load = OfferedLoad(
        float(request.images),
        permits=sizing.consumers * sizing.permits_each,
        max_images_per_s=sizing.consumers * profile.control_plane.ingest_per_s,
    )
    return Simulation((sizing.pipeline, sizing.segmenter), cluster, rules, load).run(
        3 * request.deadline_s,
        max(0.5, request.deadline_s / _STEPS),
        stop_when_drained=True,
    )


def _settings(
    request: PlanRequest, profile: Profile, times: ImageTimes, sizing: Sizing
) -> dict[str, Any]:
    """Return the settings of AppConfig that run the plan."""
    defaults = AppConfig.load({}).pipeline
    pixel_threads, threads = round(sizing.pipeline.cpus), round(sizing.segmenter.cpus)
    pair = request.pair
    engine = {} if pair == EXACT else {"engine": pair.engine, "precision": pair.precision}
    decoded_pixels = sizing.ongoing_each * profile.image_pixels
    return {
        "models": [request.model],
        "queue": {"consumers": sizing.consumers, "max_in_flight": sizing.permits_each},
        "pipeline": {
            "threads": pixel_threads,
            "num_cpus": pixel_threads,
            "max_ongoing": max(defaults.max_ongoing, sizing.ongoing_each),
            "max_decoded_bytes": max(defaults.max_decoded_bytes, BYTES_PER_PIXEL * decoded_pixels),
        },
        "segmenter": {**engine, "threads": threads, "num_cpus": threads},
        "autoscaling": {
            "max_replicas": max(sizing.replicas.values()),
            "drain_target_s": round(sizing.target_s),
            "segment_s": round(times.segment_s, 4),
            "pixels_s": round(times.pixels_s, 4),
        },
    }
