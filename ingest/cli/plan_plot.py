"""A plot of the simulated run of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ingest.cli.plan_tables import plan_title
from ingest.scaling.capacity_plan import CapacityPlan
from ingest.scaling.timeline import SimulatedState
from serve_app.errors import InvalidConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STAGE_COLORS = ("#54a24b", "#e45756")
_DEADLINE_COLOR = "#b33"


def check_plot_path(path: Path) -> None:
    """Check that a plot can be written to a file, before the plan is made.

    Raises:
        InvalidConfig: matplotlib is not installed, or has no format of the file's suffix.
    """
    try:
        # Lazy: an optional dependency of this option alone.
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise InvalidConfig(
            "--plot needs matplotlib, which is not installed. Run in the clone of Foreedge: "
            "pip install -e '.[bench]'"
        ) from error
    if path.suffix.lower().removeprefix(".") not in FigureCanvasBase.filetypes:
        raise InvalidConfig(f"--plot {path}: the name of the file must end in .png, .svg or .pdf")


def plot_plan(plan: CapacityPlan, path: Path) -> None:
    """Write the backlog, the replicas and the nodes over time to a checked path."""
    # Lazy: an optional dependency of this option alone.
    from matplotlib.figure import Figure

    states = plan.timeline.states
    seconds, unit = (3600, "hours") if states[-1].at_s > 2 * 3600 else (60, "minutes")
    times = [state.at_s / seconds for state in states]
    figure = Figure(figsize=(9, 7), layout="constrained")
    axes = figure.subplots(3, 1, sharex=True)
    backlog, replicas, nodes = axes
    backlog.set_title(plan_title(plan), loc="left", fontsize=11)
    _draw_backlog(backlog, times, states)
    _draw_replicas(replicas, times, states, list(plan.replicas))
    nodes.step(times, [state.nodes for state in states], where="post", color="#333")
    nodes.set_ylabel("nodes")
    nodes.set_xlabel(unit)
    for axis in (replicas, nodes):
        axis.yaxis.get_major_locator().set_params(integer=True)
    _mark_deadline(axes, plan.request.deadline_s / seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw_backlog(axis: Axes, times: list[float], states: list[SimulatedState]) -> None:
    millions = max(state.backlog for state in states) >= 2e6
    unit, word = (1e6, "millions") if millions else (1e3, "thousands")
    axis.fill_between(times, [s.backlog / unit for s in states], color="#4c78a8", alpha=0.35)
    axis.set_ylabel(f"backlog, {word}")


def _draw_replicas(
    axis: Axes, times: list[float], states: list[SimulatedState], names: list[str]
) -> None:
    for index, name in enumerate(names):
        color = _STAGE_COLORS[index % len(_STAGE_COLORS)]
        running = [state.running[index] for state in states]
        wanted = [state.wanted[index] for state in states]
        axis.step(times, running, where="post", color=color, label=f"{name}, running")
        axis.step(times, wanted, ":", where="post", color=color, label=f"{name}, wanted")
    axis.set_ylabel("replicas")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, fontsize=8, frameon=False)


def _mark_deadline(axes: list[Axes], deadline: float) -> None:
    for axis in axes:
        axis.axvline(deadline, color=_DEADLINE_COLOR, linestyle="--", linewidth=1)
        axis.spines[["top", "right"]].set_visible(False)
        # Only once everything is drawn, because a fixed limit ends the automatic ones.
        axis.set_ylim(bottom=0)
    axes[0].annotate(
        "deadline ",
        (deadline, 0.9),
        xycoords=("data", "axes fraction"),
        ha="right",
        color=_DEADLINE_COLOR,
    )
