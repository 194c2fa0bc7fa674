"""A plan as tables and notes for people, and as JSON for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from ingest.scaling.capacity_plan import CapacityPlan
from ingest.scaling.plan_inputs import NODE_RESERVE
from ingest.units import format_duration
from serve_app.models.engines.network import EXACT, INT8

_LOW_UTILISATION = 0.6


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Plans of the same run with one thing changed, the plan itself included."""

    families: list[CapacityPlan]
    """Plans on other instance families."""
    engines: list[CapacityPlan]
    """Plans with other engines and precisions."""


def print_plan(plan: CapacityPlan, others: Comparisons, console: Console) -> None:
    """Print a plan, comparisons with other instances and engines, and the settings to run it."""
    console.print(_summary(plan))
    console.print(_limits(plan))
    if len(others.families) > 1:
        console.print(_family_table(others.families))
    if len(others.engines) > 1:
        console.print(_engine_table(others.engines))
    console.print("Settings to run it", style="bold")
    console.print(yaml.safe_dump(plan.settings, sort_keys=False), markup=False, highlight=False)
    console.print("Notes", style="bold")
    for note in plan_notes(plan):
        console.print(f"- {note}", style="dim", markup=False, highlight=False)


def plan_title(plan: CapacityPlan) -> str:
    """Return one line that says what was planned."""
    request = plan.request
    engine = "" if request.pair == EXACT else f" ({request.pair})"
    return (
        f"{request.images:,} images with {request.model}{engine} within "
        f"{format_duration(request.deadline_s)} on {request.instance.name}"
    )


def plan_notes(plan: CapacityPlan) -> list[str]:
    """Return what a reader must know about the origin of the numbers."""
    return [*_time_notes(plan), *_price_notes(plan), *_assumption_notes(plan)]


def plan_as_json(plan: CapacityPlan) -> dict[str, Any]:
    """Return a plan as one JSON object."""
    return {
        "images": plan.request.images,
        "deadline_s": plan.request.deadline_s,
        "instance": plan.request.instance.name,
        "engine": plan.request.pair.engine,
        "precision": plan.request.pair.precision,
        "spot": plan.request.spot,
        "nodes": plan.nodes,
        "node_cpus": plan.request.offered_cpus,
        "replica_cpus": plan.sizing.pipeline.cpus,
        "replicas": plan.replicas,
        "hours": round(plan.hours, 3),
        "node_hours": round(plan.timeline.node_hours, 2),
        "images_per_s": round(plan.images_per_s, 2),
        "images_per_s_per_vcpu": round(plan.images_per_s_per_vcpu, 4),
        "cost_usd": {
            "nodes": round(plan.compute_cost, 2),
            "requests": round(plan.request_cost, 2),
            "nodes_per_1000_images": round(plan.node_cost_per_thousand, 6),
            "requests_per_1000_images": round(plan.request_cost_per_thousand, 6),
            "price_per_hour": round(plan.price_per_hour, 5),
        },
        "settings": plan.settings,
        "notes": plan_notes(plan),
    }


def _summary(plan: CapacityPlan) -> Table:
    request, timeline = plan.request, plan.timeline
    instance = request.instance
    kind = "spot" if request.spot else "on demand"
    replicas = ", ".join(f"{count} {name}" for name, count in plan.replicas.items())
    rows = {
        "Nodes": f"{plan.nodes} of {instance.name} ({kind}), {instance.vcpus} vCPUs each, "
        f"{instance.family.processor}",
        "Replicas": f"{replicas}, {plan.sizing.consumers} SqsIngest",
        "CPUs per replica": f"{plan.sizing.pipeline.cpus:g} (Ray offers {request.offered_cpus:g} "
        "on a node)",
        "Rate": f"{plan.images_per_s:,.1f} images/s at the peak, "
        f"{plan.images_per_s_per_vcpu:.2f} per vCPU",
        "Time": f"{format_duration(plan.hours * 3600)} of {format_duration(request.deadline_s)}",
        "Node-hours": f"{timeline.node_hours:,.1f} ({plan.utilisation:.0%} of their CPU time used)",
        "Cost of nodes": f"${plan.compute_cost:,.2f} at ${plan.price_per_hour:.4f} per node-hour",
        "Cost of requests": f"${plan.request_cost:,.2f} (S3 and SQS)",
        "Cost of 1,000 images": f"${plan.node_cost_per_thousand:.4f} nodes, "
        f"${plan.request_cost_per_thousand:.4f} requests",
    }
    if request.spot:
        rows["Lost nodes"] = f"{timeline.lost_nodes}, replaced (assuming 1 % per hour)"
    table = Table(title=plan_title(plan), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _time_notes(plan: CapacityPlan) -> list[str]:
    profile, request = plan.profile, plan.request
    factor = request.time_factor or request.instance.family.time_factor
    origin = "given" if request.time_factor else "ASSUMED, not measured"
    method = f" {profile.method}" if profile.method else ""
    notes = [
        f"Seconds per image: measured on {profile.machine}, {profile.measured_on}, with "
        f"{profile.images}.{method}",
        f"Factor for {request.instance.name}: {factor:g} ({origin}). One thread takes "
        f"{plan.times.segment_s:.3f} s in the model and {plan.times.pixels_s:.3f} s for the rest.",
    ]
    family = request.instance.family
    if request.time_factor is None and profile.architecture not in ("", family.arch):
        notes.append(
            f"The profile is of {profile.architecture}, and {request.instance.name} is "
            f"{family.arch}, where {request.pair.engine} runs convolutions with other kernels. "
            "Run foreedge bench-node on the instance before money depends on it."
        )
    notes += [f"Not measured then: {what}, {why}." for what, why in profile.from_elsewhere.items()]
    if request.pair.changes_numbers:
        command = "quantize" if request.pair == INT8 else "gate"
        notes.append(
            f"{request.pair} serves only once its masks have passed the gate on such a processor "
            f"(foreedge models {command})."
        )
    if request.model not in profile.names(request.pair):
        notes.append(
            f"{request.model}: measured with a graph of the same shape and random weights, which "
            "takes the same time."
        )
    return notes


def _price_notes(plan: CapacityPlan) -> list[str]:
    prices, request = plan.prices, plan.request
    if request.price_per_hour is not None:
        return []
    notes = [
        f"Prices: {prices.region} as of {prices.as_of}; NOT fetched. Check them, or give --price."
    ]
    if request.spot:
        fraction = request.spot_fraction or request.instance.family.spot_fraction
        notes.append(f"Spot price: {fraction:.0%} of the on-demand price, a typical value.")
    return notes


def _assumption_notes(plan: CapacityPlan) -> list[str]:
    request = plan.request
    notes = [
        f"Assumed: a node starts in {format_duration(request.node_start_s)}, a replica in "
        f"{format_duration(plan.profile.replica_start_s)}, and Ray takes {NODE_RESERVE:.0%} of a "
        "node's CPU time.",
        "Assumed: all messages are on the queue at the beginning, when one node per ingest actor "
        "is running.",
        "Not included: the head node, storage, traffic to other regions, NAT gateways.",
    ]
    if plan.utilisation < _LOW_UTILISATION:
        own_nodes = plan.sizing.consumers >= plan.nodes > 1
        reason = "each ingest actor has its own node" if own_nodes else "there are few images"
        notes.append(
            f"Much of the CPU time is unused because {reason}. A smaller instance costs less."
        )
    return notes


def _limits(plan: CapacityPlan) -> Table:
    table = Table(title="Load of the control plane, per process", title_justify="left")
    table.add_column("")
    table.add_column("needed", justify="right")
    table.add_column("measured limit", justify="right")
    table.add_column("load", justify="right")
    for name, (needed, limit) in plan.limits.items():
        load = needed / limit
        verdict = f"{load:.0%}" if load <= 1 else f"[red]{load:.0%}: too high[/red]"
        table.add_row(name, f"{needed:,.1f}", f"{limit:,.0f}", verdict)
    return table


def _engine_table(plans: list[CapacityPlan]) -> Table:
    table = Table(title="Same run with other engines", title_justify="left")
    names = ("engine", "model s", "nodes", "time", "cost", "1,000 images")
    for name in names:
        table.add_column(name, justify="left" if name == "engine" else "right")
    for plan in plans:
        table.add_row(
            str(plan.request.pair),
            f"{plan.times.segment_s:.3f}",
            str(plan.nodes),
            format_duration(plan.hours * 3600),
            f"${plan.compute_cost:,.2f}",
            f"${plan.node_cost_per_thousand:.4f}",
        )
    return table


def _family_table(plans: list[CapacityPlan]) -> Table:
    table = Table(
        title="Same run on other families (their factors are assumed)", title_justify="left"
    )
    for name in ("instance", "processor", "nodes", "time", "cost", "factor"):
        table.add_column(name, justify="left" if name in ("instance", "processor") else "right")
    for plan in plans:
        family = plan.request.instance.family
        table.add_row(
            plan.request.instance.name,
            family.processor,
            str(plan.nodes),
            format_duration(plan.hours * 3600),
            f"${plan.compute_cost:,.2f}",
            f"{plan.request.time_factor or family.time_factor:g}",
        )
    return table
