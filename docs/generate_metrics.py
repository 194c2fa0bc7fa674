"""Write the table of metrics of docs/operations/monitoring.md: ``make docs``."""

from __future__ import annotations

from pathlib import Path

from loadtests.harness.results import replace_between_markers
from serve_app.serving.metrics import METRICS, Metric

PAGE = Path(__file__).parent / "operations" / "monitoring.md"


def page() -> str:
    """Return the page with the table of the metrics that the code defines."""
    rows = ["| name in Prometheus | kind | labels | meaning |", "|---|---|---|---|"]
    rows += [_row(metric) for metric in METRICS]
    return replace_between_markers(PAGE.read_text("utf-8"), "metrics", "\n".join(rows))


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.exported}` | {metric.kind} | {labels} | {metric.description} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
