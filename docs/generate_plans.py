"""Write what README.md and pages of docs say about costs and times of runs: ``make docs``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ingest.scaling.capacity_plan import CapacityPlan, make_plan
from ingest.scaling.plan_inputs import find_instance, read_prices, read_profile
from ingest.scaling.sizing import PlanRequest
from ingest.units import counted, format_duration
from loadtests.harness.results import replace_between_markers
from serve_app.models.engines.network import EXACT, Pair

README = Path(__file__).parents[1] / "README.md"
PERFORMANCE = Path(__file__).parent / "performance.md"
UPKEEP = Path(__file__).parent / "operations" / "upkeep.md"

_DEADLINE_S = 24 * 3600.0
_BFLOAT16 = Pair("openvino", "bfloat16")


@dataclass(frozen=True, slots=True)
class Row:
    """A run of images in a day."""

    model: str
    instance: str
    pair: Pair = EXACT
    spot: bool = False
    images: int = 10_000_000
    node_cpus: float | None = None


COSTS = (
    Row("folio", "c7i.xlarge"),
    Row("u2netp", "c7i.xlarge"),
    Row("u2netp", "c7i.xlarge", _BFLOAT16),
    Row("u2net", "c7i.xlarge"),
    Row("u2netp", "c8g.xlarge"),
)
"""Runs whose costs the README shows."""
RUNS = tuple(Row(model, "c8g.4xlarge", spot=True) for model in ("u2net", "u2netp", "folio"))
"""Runs of the page about performance."""
UPKEEP_RUN = Row("u2netp", "c8g.2xlarge", spot=True, images=1_000_000, node_cpus=7)
"""The run whose cost docs/operations/upkeep.md shows."""


@cache
def plan_of(row: Row) -> CapacityPlan:
    """Return the plan of a row, by the profile and the prices in the package."""
    prices = read_prices()
    request = PlanRequest(
        row.images,
        _DEADLINE_S,
        find_instance(row.instance, prices),
        row.model,
        pair=row.pair,
        spot=row.spot,
        node_cpus=row.node_cpus,
    )
    return make_plan(request, read_profile(None), prices)


def readme() -> str:
    """Return the README with the costs of 1,000 images."""
    lines = [
        "| model, engine | instance | nodes, $ | requests, $ | images/s for each vCPU |",
        "|---|---|---:|---:|---:|",
    ]
    for row in COSTS:
        plan = plan_of(row)
        marks = ""
        if plan.profile.architecture != plan.request.instance.family.arch:
            marks += " ¹"
        if row.model not in plan.profile.names(row.pair):
            marks += " ²"
        lines.append(
            f"| {row.model}, {row.pair} | {row.instance}{marks} | "
            f"{plan.node_cost_per_thousand:.4f} | {plan.request_cost_per_thousand:.4f} | "
            f"{plan.images_per_s_per_vcpu:.1f} |"
        )
    profile, prices = plan.profile, plan.prices
    factor = plan.request.instance.family.time_factor
    lines += [
        "",
        f"Measured: CPU seconds of a {profile.images}, on {profile.machine}, "
        f"{profile.measured_on}.",
        f"Assumed: list prices of {prices.region} as of {prices.as_of}, and that a vCPU of the "
        "instance is as fast.",
        "Requests are those to S3 and SQS.",
        f"¹ Nothing was measured on Graviton: {factor:g} times these seconds is a guess.",
        "² Measured with random weights in the model's shape.",
    ]
    return replace_between_markers(README.read_text("utf-8"), "costs", "\n".join(lines))


def performance() -> str:
    """Return the page about performance with the runs of ten million images."""
    lines = ["| model | nodes (c8g.4xlarge) | time |", "|---|---:|---:|"]
    for row in RUNS:
        plan = plan_of(row)
        lines.append(f"| {row.model} | {plan.nodes} | {format_duration(plan.hours * 3600)} |")
    return replace_between_markers(
        PERFORMANCE.read_text("utf-8"), "plans", "\n".join([*lines, "", *_inputs()])
    )


def upkeep() -> str:
    """Return the page about upkeep with a plan's command and what that run costs."""
    row, plan = UPKEEP_RUN, plan_of(UPKEEP_RUN)
    lines = [
        "```",
        f"foreedge plan --images {row.images // 1_000_000}M --deadline {_DEADLINE_S / 3600:.0f}h "
        f"--instance {row.instance} --spot --model {row.model} --node-cpus {row.node_cpus:g}",
        "```",
        "",
        "prints what a run costs, with the assumptions it makes:",
        f"{counted(plan.nodes, 'node')} for {format_duration(plan.hours * 3600)} and "
        f"${plan.compute_cost:.2f}, and ${plan.request_cost:.2f} for the requests of S3 and SQS.",
    ]
    return replace_between_markers(UPKEEP.read_text("utf-8"), "cost", "\n".join(lines))


def _inputs() -> list[str]:
    """Return the table of what the plans are made of."""
    profile = read_profile(None)
    lines = [
        f"Inputs, in CPU seconds of one thread for a {profile.images} on {profile.machine}, "
        f"{profile.measured_on}:",
        "",
        f"| model | {' | '.join(map(str, profile.pairs()))} |",
        "|---|" + "---:|" * len(profile.pairs()),
    ]
    for name in profile.segment_s:
        cells = [f"{profile.segment(name, pair):.4f}" for pair in profile.pairs()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    control = profile.control_plane
    lines += [
        "",
        "| other inputs | value |",
        "|---|---|",
        f"| pixels | {profile.pixels_s:.4f} s |",
        f"| what the application adds by the queue | {profile.overhead_s:.4f} s |",
        f"| handle calls of one replica | {control.handle_calls_per_s:.0f}/s |",
        f"| messages of one ingest actor | {control.ingest_per_s:.0f}/s |",
    ]
    families = read_prices().families.values()
    lines += [
        f"| time on a vCPU of {each.processor} | {each.time_factor:g} of these, an assumption |"
        for each in families
    ]
    lines += ["", profile.method]
    lines += [f"`{name}` was {origin}." for name, origin in profile.from_elsewhere.items()]
    return lines


if __name__ == "__main__":
    README.write_text(readme(), "utf-8")
    PERFORMANCE.write_text(performance(), "utf-8")
    UPKEEP.write_text(upkeep(), "utf-8")
