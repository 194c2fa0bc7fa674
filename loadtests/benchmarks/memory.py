"""Peak memory of each format and recipe, and what the pipeline charges for it.

``python -m loadtests.benchmarks.memory`` (``make bench-memory``) processes one image of noise in a
fresh process for each case (``loadtests.harness.peak_memory``). The charges are those of
``serve_app/imaging/footprint.py``.
"""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.harness.corpus import FOLDER
from loadtests.harness.peak_memory import KINDS, Case, Peak, measure_peaks
from loadtests.harness.results import describe_measurement, write_result

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "png_compression 6": {"png_compression": 6},
    "white": {"background": "white"},
    "translucent": {"background": "#ff000080"},
    "post_process_mask": {"post_process_mask": True},
    "mask": {"mask_only": True},
    "webp": {"format": "webp"},
    "webp, white": {"format": "webp", "background": "white"},
    "webp, mask": {"format": "webp", "mask_only": True},
    "jpeg": {"format": "jpeg", "background": "white"},
    "thumbnail": {"thumbnail": {}},
    "thumbnail, white": {"thumbnail": {}, "background": "white"},
    "crop_to_subject": {"crop_to_subject": True},
}
"""Recipes that differ in memory, by a name for tables."""

_WITH_ALPHA = ("default", "webp", "webp, white", "jpeg", "thumbnail")
"""Recipes that are also measured with an image that has transparency of its own."""


def cases(width: int, height: int) -> dict[str, Case]:
    """Return every kind with the default recipe, and every recipe with a JPEG image.

    Args:
        width: Width of the images, in pixels.
        height: Height of the images, in pixels.
    """
    pairs = [
        *((kind, "default") for kind in KINDS),
        *(("jpeg", name) for name in RECIPES),
        *(("png rgba", name) for name in _WITH_ALPHA),
    ]
    return {f"{kind}, {name}": Case(kind, RECIPES[name], width, height) for kind, name in pairs}


def main() -> None:
    """Measure every case, and print and write the result."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.memory",
        description="Measure the peak memory of each format and recipe.",
    )
    parser.add_argument("--width", type=int, default=2000, help="width of the images")
    parser.add_argument("--height", type=int, default=1500, help="height of the images")
    options = parser.parse_args()
    folder = FOLDER / "memory"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = cases(options.width, options.height)
    peaks = dict(zip(chosen, measure_peaks(list(chosen.values()), folder), strict=True))
    console = Console()
    console.print(_make_table(peaks))
    content = {
        **describe_measurement("loadtests.benchmarks.memory"),
        "bytes": {name: [peak.measured, peak.charged] for name, peak in peaks.items()},
    }
    console.print(f"Written to {write_result('memory.json', content)}", highlight=False)


def _make_table(peaks: dict[str, Peak]) -> Table:
    table = Table("image, recipe", "file", "peak", "charge", "share", title="bytes per pixel")
    for name, peak in peaks.items():
        pixels = peak.case.pixels
        table.add_row(
            name,
            *(f"{size / pixels:.1f}" for size in (peak.file_bytes, peak.measured, peak.charged)),
            f"{peak.measured / peak.charged:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
