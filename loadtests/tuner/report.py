"""The tuner's results: the winner as a Serve file, all trials as a plot and a page."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ingest.units import counted
from loadtests.tuner.trials import DEFAULT_PAIR, Setting, Trial, frontier

PLOT = "tune.png"
"""Name of the plot of all trials."""

_COLORS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d")
"""Colours of engines with their precisions, of which no processor runs more."""
_MARKERS = (
    ("fan_out", "deployment", "o"),
    ("fan_out", "pipeline", "^"),
    ("stack", "deployment", "s"),
    ("stack", "pipeline", "D"),
)
"""Markers of executions and placements."""


def write_yaml(path: Path, config: dict[str, Any], notes: Sequence[str]) -> None:
    """Write a Serve configuration, with notes about its origin as comments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "".join(f"# {line}\n" for line in notes)
    path.write_text(head + yaml.safe_dump(config, sort_keys=False), "utf-8")


def describe_setting(setting: Setting) -> str:
    """Return a setting in a few words."""
    batch = "" if setting.execution == "fan_out" else f", batch {setting.max_batch_size}"
    if setting.pair != DEFAULT_PAIR:
        batch += f", {setting.pair}"
    if setting.placement == "pipeline":
        return (
            f"{setting.execution}, model in {counted(setting.pipelines, 'pipeline')} x "
            f"{counted(setting.threads, 'thread')}{batch}"
        )
    return (
        f"{setting.execution}, {setting.segmenters} x {counted(setting.threads, 'thread')}{batch}, "
        f"{setting.max_ongoing} ongoing, {counted(setting.pipelines, 'pipeline')}"
    )


def plot_trials(
    trials: Sequence[Trial], winner: Trial | None, p95_s: float | None, title: str
) -> Figure:
    """Return a plot of throughput over latency that marks the frontier and the winner."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes: Axes = figure.subplots()
    served = [t for t in trials if t.failures == 0]
    colors = dict(zip(sorted({t.setting.pair for t in served}), _COLORS, strict=False))
    for (pair, color), (execution, placement, marker) in product(colors.items(), _MARKERS):
        kind = (pair, execution, placement)
        points = [
            t for t in served if (t.setting.pair, t.setting.execution, t.setting.placement) == kind
        ]
        if points:
            axes.scatter(
                [t.p95_s for t in points], [t.images_per_s for t in points], s=26, color=color,
                marker=marker, alpha=0.6, label=f"{pair}, {execution}, model in a {placement}",
            )  # fmt: skip
    best = frontier(trials)
    axes.plot(
        [t.p95_s for t in best], [t.images_per_s for t in best], color="#333", linewidth=1.2,
        marker="o", markersize=4, label="frontier",
    )  # fmt: skip
    if winner is not None:
        chosen = f"chosen, with {counted(winner.users, 'user')}"
        axes.plot(
            [winner.p95_s], [winner.images_per_s], marker="*", markersize=18, color="#e45756",
            linestyle="none", label=chosen,
        )  # fmt: skip
    if p95_s is not None:
        axes.axvline(p95_s, color="#b33", linestyle="--", linewidth=1, label="objective")
    axes.set_xlabel("p95 latency, s")
    axes.set_ylabel("images/s")
    axes.set_title(title, loc="left", fontsize=11)
    axes.margins(0.12)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=9, loc="outside lower left", ncols=2)
    return figure


def tuning_section(
    trials: Sequence[Trial], winner: Trial, p95_s: float | None, label: str, notes: Sequence[str]
) -> str:
    """Return the table of the best setting of each engine and placement, for a document.

    Args:
        trials: All trials.
        winner: Trial of the setting that was chosen.
        p95_s: Objective for the 95th percentile of latencies, in seconds, if there is one.
        label: Name of the model, with the origin of its weights.
        notes: Sentences about the conditions and the result.
    """
    best = {_kind(winner.setting): winner}
    for trial in sorted(trials, key=lambda each: -each.images_per_s):
        if trial.meets(p95_s):
            best.setdefault(_kind(trial.setting), trial)
    lines = [
        f"| {label}, the best setting of each engine and placement | users | images/s | p95 |",
        "|---|---:|---:|---:|",
    ]
    for trial in sorted(best.values(), key=lambda each: -each.images_per_s):
        chosen = " (chosen)" if trial == winner else ""
        lines.append(
            f"| {describe_setting(trial.setting)}{chosen} | {trial.users} | "
            f"{trial.images_per_s:.2f} | {trial.p95_s:.2f} s |"
        )
    return "\n".join([*lines, "", " ".join(notes)])


def _kind(setting: Setting) -> tuple[str, str]:
    return setting.pair, setting.placement


def write_page(
    folder: Path,
    trials: Sequence[Trial],
    winner: Trial | None,
    p95_s: float | None,
    title: str,
    notes: Sequence[str],
) -> Path:
    """Write ``tune.png`` and ``tune.html``, and return the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    figure = plot_trials(trials, winner, p95_s, title)
    figure.savefig(folder / PLOT, dpi=120)
    svg = io.StringIO()
    figure.savefig(svg, format="svg")
    drawing = svg.getvalue()
    page = _PAGE.format(
        title=html.escape(title),
        notes="".join(f"<p>{html.escape(note)}</p>" for note in notes),
        drawing=drawing[drawing.index("<svg") :],
        heads="".join(f"<th>{html.escape(head)}</th>" for head in _HEADS),
        rows="\n".join(_rows(trials, winner)),
    )
    path = folder / "tune.html"
    path.write_text(page, "utf-8")
    return path


_HEADS = [*asdict(Setting()), "users", "images/s", "p50 s", "p95 s", "failures", ""]


def _rows(trials: Sequence[Trial], winner: Trial | None) -> list[str]:
    """Return the rows of the table in HTML, the fastest trial first."""
    best = set(map(id, frontier(trials)))
    rows = []
    for trial in sorted(trials, key=lambda each: -each.images_per_s):
        marks = ("chosen " if trial == winner else "") + ("frontier" if id(trial) in best else "")
        values = {**asdict(trial.setting), "users": trial.users}
        numbers = (f"{trial.images_per_s:.2f}", f"{trial.p50_s:.3f}", f"{trial.p95_s:.3f}")
        cells = [*map(str, values.values()), *numbers, str(trial.failures), marks.strip()]
        kind = "chosen" if trial == winner else ""
        cells_html = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        rows.append(f'<tr class="{kind}">{cells_html}</tr>')
    return rows


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; color: #222; }}
svg {{ max-width: 100%; height: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: 13px; }}
th, td {{ padding: .25rem .5rem; text-align: right; border-bottom: 1px solid #ddd; }}
th:first-child, td:first-child {{ text-align: left; }}
.chosen {{ background: #fde9e9; font-weight: 600; }}
p {{ margin: .2rem 0; color: #555; }}
</style></head><body>
<h1>{title}</h1>
{notes}
{drawing}
<table><thead><tr>{heads}</tr></thead><tbody>
{rows}
</tbody></table>
</body></html>
"""
