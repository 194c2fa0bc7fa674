"""A plan for people: tables, and a plot of the simulated run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from ingest.scaling.capacity_plan import CapacityPlan
from ingest.scaling.plan_inputs import NODE_RESERVE
from ingest.units import format_duration
from serve_app.errors import InvalidConfig

_LITTLE_USED = 0.6


def show(plan: CapacityPlan, others: list[CapacityPlan], console: Console) -> None:
    """Print a plan, how other families compare, and the settings that run it."""
    request, timeline = plan.request, plan.timeline
    kind = "spot" if request.spot else "on demand"
    table = Table(title=_title(plan), show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    rows = {
        "Nodes": f"{plan.nodes} of {request.instance.name} ({kind}), each {request.instance.vcpus} "
        f"vCPUs of {request.instance.family.processor}",
        "Replicas": ", ".join(f"{count} {name}" for name, count in plan.replicas.items())
        + f", {plan.settings['queue']['consumers']} SqsIngest",
        "Rate": f"{plan.images_per_s:,.1f} images/s at the peak",
        "Time": f"{format_duration(plan.hours * 3600)} of {format_duration(request.deadline_s)}",
        "Node hours": f"{timeline.node_hours:,.1f}, {plan.utilisation:.0%} of their CPUs used",
        "Nodes cost": f"${plan.compute_cost:,.2f} at ${plan.price_per_hour:.4f} a node and hour",
        "Requests cost": f"${plan.request_cost:,.2f} (S3 and SQS)",
        "Per million": f"${(plan.compute_cost + plan.request_cost) * 1e6 / request.images:,.2f}",
    }
    if request.spot:
        rows["Lost nodes"] = f"{timeline.lost_nodes}, replaced (an assumption of 1 % an hour)"
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    console.print(_limits(plan))
    if len(others) > 1:
        console.print(_comparison(others))
    console.print("Settings", style="bold")
    console.print(yaml.safe_dump(plan.settings, sort_keys=False), markup=False, highlight=False)
    for line in notes(plan):
        console.print(f"  {line}", style="dim", markup=False, highlight=False)


def notes(plan: CapacityPlan) -> list[str]:
    """Return what a reader must know about where the numbers come from."""
    profile, prices, request = plan.profile, plan.prices, plan.request
    factor = request.time_factor or request.instance.family.time_factor
    source = "given" if request.time_factor else "ASSUMED, not measured"
    lines = [
        f"Seconds for an image: measured on {profile.machine}, {profile.measured_on}, with "
        f"{profile.images}.",
        f"Its seconds times {factor:g} for {request.instance.name} ({source}): "
        f"{plan.segment_s:.3f} s in the model, {plan.pixels_s:.3f} s for the rest, of one thread.",
    ]
    if request.model not in profile.segment_s:
        lines.append(
            f"{request.model}: the time of a graph of its shape with random weights, which costs "
            "the same."
        )
    if request.price_per_hour is None:
        lines.append(
            f"Prices: {prices.region}, written down as of {prices.as_of}; NOT fetched. Check them, "
            "or give --price."
        )
    if request.spot and request.price_per_hour is None:
        fraction = request.spot_fraction or request.instance.family.spot_fraction
        lines.append(f"Spot: {fraction:.0%} of the price on demand, a typical value.")
    lines.append(
        f"Assumed too: a node starts in {format_duration(request.node_start_s)}, a replica in "
        f"{format_duration(profile.replica_start_s)}; Ray takes {NODE_RESERVE:.0%} of a node."
    )
    if plan.utilisation < _LITTLE_USED:
        consumers = plan.settings["queue"]["consumers"]
        why = (
            "each ingest actor has a node of its own"
            if consumers >= plan.nodes > 1
            else "few images"
        )
        lines.append(f"Much of the nodes' CPUs is idle ({why}): a smaller instance costs less.")
    lines.append(
        "Every message is on the queue at the beginning, and a node for each ingest actor is up."
    )
    lines.append("Not in it: the head node, storage, traffic to other regions, NAT gateways.")
    return lines


def as_json(plan: CapacityPlan) -> dict[str, Any]:
    """Return a plan as one JSON object."""
    return {
        "images": plan.request.images,
        "deadline_s": plan.request.deadline_s,
        "instance": plan.request.instance.name,
        "spot": plan.request.spot,
        "nodes": plan.nodes,
        "replicas": plan.replicas,
        "hours": round(plan.hours, 3),
        "node_hours": round(plan.timeline.node_hours, 2),
        "images_per_s": round(plan.images_per_s, 2),
        "cost_usd": {
            "nodes": round(plan.compute_cost, 2),
            "requests": round(plan.request_cost, 2),
            "price_per_hour": round(plan.price_per_hour, 5),
        },
        "settings": plan.settings,
        "notes": notes(plan),
    }


def plot(plan: CapacityPlan, path: Path) -> None:
    """Write backlog, replicas and nodes over time as a PNG file.

    Raises:
        InvalidConfig: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidConfig(
            "--plot needs matplotlib, which is not installed: pip install 'foreedge[bench]'"
        ) from error
    moments = plan.timeline.moments
    scale, unit = (3600, "hours") if moments[-1].at_s > 2 * 3600 else (60, "minutes")
    times = [moment.at_s / scale for moment in moments]
    figure = Figure(figsize=(9, 7), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    top.set_title(_title(plan), loc="left", fontsize=11)
    most = max(moment.backlog for moment in moments)
    thousands, word = (1e6, "millions") if most >= 2e6 else (1e3, "thousands")
    top.fill_between(times, [m.backlog / thousands for m in moments], color="#4c78a8", alpha=0.35)
    top.set_ylabel(f"backlog, {word}")
    deadline = plan.request.deadline_s / scale
    for axis in (top, middle, bottom):
        axis.axvline(deadline, color="#b33", linestyle="--", linewidth=1)
        axis.spines[["top", "right"]].set_visible(False)
    top.annotate("deadline ", (deadline, 0.9), xycoords=("data", "axes fraction"), ha="right",
                 color="#b33")  # fmt: skip
    for index, name in enumerate(plan.replicas):
        color = ("#54a24b", "#e45756")[index % 2]
        middle.step(times, [m.running[index] for m in moments], where="post", color=color,
                    label=f"{name}, running")  # fmt: skip
        middle.step(times, [m.wanted[index] for m in moments], where="post", color=color,
                    linestyle=":", label=f"{name}, wanted")  # fmt: skip
    middle.set_ylabel("replicas")
    middle.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=8, frameon=False)
    bottom.step(times, [m.nodes for m in moments], where="post", color="#333")
    bottom.set_ylabel("nodes")
    for axis in (middle, bottom):
        axis.yaxis.get_major_locator().set_params(integer=True)
    bottom.set_xlabel(unit)
    for axis in (top, middle, bottom):
        # Once everything is drawn: a limit that is set ends the automatic ones.
        axis.set_ylim(bottom=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _title(plan: CapacityPlan) -> str:
    request = plan.request
    return (
        f"{request.images:,} images with {request.model} within "
        f"{format_duration(request.deadline_s)} on {request.instance.name}"
    )


def _limits(plan: CapacityPlan) -> Table:
    table = Table(title="Control plane", title_justify="left")
    table.add_column("of one process")
    table.add_column("needed", justify="right")
    table.add_column("measured limit", justify="right")
    table.add_column("")
    for name, (needed, limit) in plan.limits.items():
        share = needed / limit
        verdict = f"{share:.0%}" if share <= 1 else f"[red]{share:.0%}: too much[/red]"
        table.add_row(name, f"{needed:,.1f}", f"{limit:,.0f}", verdict)
    return table


def _comparison(plans: list[CapacityPlan]) -> Table:
    table = Table(
        title="The same on other families (factors of time are assumed)", title_justify="left"
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
