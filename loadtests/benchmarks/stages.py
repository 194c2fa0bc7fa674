"""CPU time of each step of an image: ``python -m loadtests.benchmarks.stages``.

The bare loop takes the images on one thread, so that the time of a step is that of its thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from loadtests.benchmarks.bare_loop import STAGES
from loadtests.harness.corpus import corpus
from loadtests.harness.results import (
    DOCS,
    describe_machine,
    measure_busy_cores,
    write_between_markers,
)
from loadtests.harness.shaped_models import benchmark_model
from serve_app.models.registry import BUNDLED_MODEL

_ROWS = (
    ("small", BUNDLED_MODEL, 48),
    ("1600x1200", BUNDLED_MODEL, 48),
    ("12mp", BUNDLED_MODEL, 12),
    ("1600x1200", "u2netp", 16),
)
"""Set of images, model and number of images of each row."""


def stages_s(model: str, images: list[Path]) -> dict[str, float]:
    """Return the CPU seconds that each stage of the bare loop takes on one thread, medians."""
    command = [sys.executable, "-m", "loadtests.benchmarks.bare_loop", model, "1"]
    done = subprocess.run([*command, *map(str, images)], check=True, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout)["stages_ms"]
    return {stage: ms / 1000 for stage, ms in found.items()}


def main() -> None:
    """Measure every row, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.stages",
        description="Measure the CPU time of each step of an image.",
    )
    parser.add_argument("--write-docs", action="store_true", help=f"write the table into {DOCS}")
    options = parser.parse_args()
    machine, busy = describe_machine(), measure_busy_cores()
    lines = [f"| images | {' | '.join(STAGES)} | total |", "|---|" + "---:|" * (len(STAGES) + 1)]
    for name, model, count in _ROWS:
        spent_ms = [1000 * seconds for seconds in stages_s(model, corpus(name, count)).values()]
        cells = [f"{ms:.1f}" for ms in spent_ms] + [f"{sum(spent_ms):.0f} ms"]
        lines.append(f"| {name}, {benchmark_model(model).label} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Medians on {machine['cpu']}, {machine['cores']} cores, {busy:g} of them busy with other "
        "work before.",
    ]
    text = "\n".join(lines)
    print(text)
    if options.write_docs:
        write_between_markers(DOCS, "stages", text)


if __name__ == "__main__":
    main()
