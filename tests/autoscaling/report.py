"""The table and the plot of a run, for docs/operations/scaling.md."""

from __future__ import annotations

import itertools
from pathlib import Path

from matplotlib.figure import Figure

from tests.autoscaling.samples import BacklogRun, Sample

_OF_NODES = ("idle nodes given up", "no node")
"""Moments that the rows about nodes have already."""
_INK, _LINES = "#444444", ("#b5651d", "#2a6f97", "#5b8c5a")


def table(run: BacklogRun) -> str:
    """Return a row for each change of the nodes, and for each moment of the run."""
    rows = [
        (at_s, event, _at(run.samples, at_s))
        for event, at_s in run.moments.items()
        if event not in _OF_NODES
    ]
    for before, now in itertools.pairwise(run.samples):
        if now.nodes != before.nodes:
            number = abs(now.nodes - before.nodes)
            noun = "node" if number == 1 else "nodes"
            verb = "joined" if now.nodes > before.nodes else "given up"
            rows.append((now.at_s, f"{number} {noun} {verb}", now))
        if now.without_node and not before.without_node:
            rows.append((now.at_s, "replicas fit on no node", now))
    head = (
        "| time | event | backlog | replicas wanted | running | without a node | nodes |\n"
        "|---:|---|---:|---:|---:|---:|---:|"
    )
    lines = [
        f"| {at_s:.0f} s | {event} | {now.backlog} | {now.wanted} | {now.running} "
        f"| {now.without_node} | {now.nodes} |"
        for at_s, event, now in sorted(rows, key=lambda row: row[0])
    ]
    return "\n".join([head, *lines])


def draw(run: BacklogRun, path: Path) -> None:
    """Draw the backlog, the replicas and the nodes over time into a file."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    times = [sample.at_s for sample in run.samples]
    backlog = [sample.backlog for sample in run.samples]
    upper.fill_between(times, backlog, step="post", color=_LINES[0], alpha=0.35, linewidth=0)
    upper.set_ylabel("messages waiting or held")
    for name, color, values in (
        ("replicas wanted", _LINES[0], [sample.wanted for sample in run.samples]),
        ("replicas running", _LINES[1], [sample.running for sample in run.samples]),
        ("nodes", _LINES[2], [sample.nodes for sample in run.samples]),
    ):
        lower.step(times, values, where="post", color=color, label=name, linewidth=1.6)
    lower.set_ylabel("number")
    lower.set_xlabel("seconds")
    lower.legend(frameon=False, loc="upper right")
    for axis in (upper, lower):
        axis.set_ylim(bottom=0)
        axis.set_xlim(left=0)
        axis.tick_params(colors=_INK)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _at(samples: list[Sample], at_s: float) -> Sample:
    """Return the last sample until a time, or the first one."""
    return next((each for each in reversed(samples) if each.at_s <= at_s), samples[0])
