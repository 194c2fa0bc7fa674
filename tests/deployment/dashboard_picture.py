"""The panels of the dashboard, drawn from a Prometheus by matplotlib."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.deployment.monitored_run import Prometheus

_COLUMNS = 4
_MOST_LINES = 12
_VARIABLES = {"$namespace": ".*", "$price": "0.319"}


def filled(expression: str) -> str:
    """Return an expression with the values that the dashboard's variables have by default."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def draw(
    dashboard: dict[str, Any], prometheus: Prometheus, start_s: float, end_s: float, path: Path
) -> None:
    """Draw the data of every panel into a file.

    Args:
        dashboard: The dashboard.
        prometheus: Source of the data.
        start_s: Start of the time to show, in seconds since 1970.
        end_s: End of the time to show.
        path: File to write.
    """
    panels = [panel for panel in dashboard["panels"] if panel["type"] == "timeseries"]
    lines = math.ceil(len(panels) / _COLUMNS)
    figure = Figure(figsize=(5 * _COLUMNS, 3.1 * lines), layout="constrained")
    axes = list(figure.subplots(lines, _COLUMNS, squeeze=False).flat)
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel, prometheus, start_s, end_s)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=70)


def _draw_panel(
    axis: Axes, panel: dict[str, Any], prometheus: Prometheus, start_s: float, end_s: float
) -> None:
    axis.set_title(f"{panel['title']} [{panel['fieldConfig']['defaults']['unit']}]", fontsize=9)
    axis.tick_params(labelsize=7)
    drawn = 0
    for target in panel["targets"]:
        for series in prometheus.range(filled(target["expr"]), start_s, end_s):
            points = [(float(at) - start_s, float(value)) for at, value in series["values"]]
            name = _named(target["legendFormat"], series["metric"])
            axis.plot(*zip(*points, strict=True), label=name, linewidth=1.2)
            drawn += 1
    if drawn:
        # Room above, so that a line of one value is not on the edge.
        axis.set_ylim(0, 1.2 * axis.get_ylim()[1])
        axis.legend(fontsize=6, ncols=1 + drawn // _MOST_LINES, loc="upper left", framealpha=0.6)
    else:
        axis.text(0.5, 0.5, "nothing to count in this run", ha="center", fontsize=8)


def _named(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend).strip()
