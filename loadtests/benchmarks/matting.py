"""CPU time and memory of matting compared with rembg's: ``python -m loadtests.benchmarks.matting``.

Both get the same image and mask, and give the same result. Each measurement runs in a process of
its own. ``--write-docs`` writes the table into docs/performance.md. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from loadtests.harness.results import (
    DOCS,
    describe_machine,
    measure_busy_cores,
    write_between_markers,
)
from serve_app.config import PipelineConfig
from serve_app.contracts.recipe import Matting
from serve_app.imaging.matting import matte, preload_matting
from serve_app.models.folio.synthetic.photograph import draw_photograph

SIZES = ((800, 600), (1600, 1200), (2048, 1536), (4000, 3000))
REMBG_MAX_PIXELS = 4_000_000
"""Largest image that rembg is measured with. Beyond it, many machines have too little memory."""


def measure(system: str, width: int, height: int) -> dict[str, float]:
    """Return the CPU seconds and the MB that one image takes, without what is loaded before."""
    drawn = draw_photograph(3, width=width, height=height, kind="book")
    mask = np.asarray(cv2.GaussianBlur(drawn.mask, (0, 0), width / 300), np.uint8)
    settings = Matting(method="closed_form")
    preload_matting()
    if system == "rembg":
        # Only here, so that Foreedge's process does not load rembg.
        from rembg.bg import alpha_matting_cutout

        rgb = Image.fromarray(drawn.image)

        def run() -> object:
            edges = (settings.foreground_above, settings.background_below, settings.erode_px)
            return alpha_matting_cutout(rgb, Image.fromarray(mask), *edges)
    else:

        def run() -> object:
            return matte(drawn.image, mask, settings, PipelineConfig().matting_max_pixels)

    # Resets the peak, so that the memory for drawing the image does not count.
    Path("/proc/self/clear_refs").write_text("5")
    before_mb = _peak_mb()
    started_s = time.process_time()
    run()
    return {"cpu_s": time.process_time() - started_s, "mb": _peak_mb() - before_mb}


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Measure every size with both programs."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.matting",
        description="Measure CPU time and memory of matting, compared with rembg's.",
    )
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--write-docs", action="store_true", help=f"write the table into {DOCS}")
    options = parser.parse_args()
    if options.one:
        system, width, height = options.one
        print(json.dumps(measure(system, int(width), int(height))))
        return
    busy = measure_busy_cores()
    lines = [
        "| image | CPU s: Foreedge | rembg | memory MB: Foreedge | rembg |",
        "|---|---|---|---|---|",
    ]
    for width, height in SIZES:
        ours = _measure_in_process("foreedge", width, height)
        cells = [f"{width} x {height}", f"{ours['cpu_s']:.2f}", "", f"{ours['mb']:.0f}", ""]
        if width * height <= REMBG_MAX_PIXELS:
            theirs = _measure_in_process("rembg", width, height)
            cells[2], cells[4] = f"{theirs['cpu_s']:.2f}", f"{theirs['mb']:.0f}"
        lines.append(f"| {' | '.join(cells)} |")
    machine = describe_machine()
    lines.append("")
    lines.append(
        f"`python -m loadtests.benchmarks.matting` on {machine['cpu']}, {machine['cores']} cores, "
        f"{busy} of them busy with other work. CPU time, not wall time."
    )
    text = "\n".join(lines)
    print(text)
    if options.write_docs:
        write_between_markers(DOCS, "matting", text)


def _measure_in_process(system: str, width: int, height: int) -> dict[str, float]:
    command = [sys.executable, "-m", "loadtests.benchmarks.matting", "--one", system]
    answer = subprocess.run(
        [*command, str(width), str(height)], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
