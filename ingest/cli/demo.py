"""``foreedge demo``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

ImagesOption = Annotated[
    Path | None,
    typer.Option(help="Folder of your own images. Default: photographs of ours."),
]
CountOption = Annotated[
    int,
    typer.Option(min=1, help="Number of photographs. A quarter, six at most, are real ones."),
]
OutOption = Annotated[Path, typer.Option(help="Folder for the cut-outs and the report.")]
KeepOption = Annotated[bool, typer.Option("--keep", help="Keep everything running until Ctrl-C.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the drawn photographs.")]


def demo(
    images: ImagesOption = None,
    count: CountOption = 24,
    out: OutOption = Path("out/demo"),
    keep: KeepOption = False,
    seed: SeedOption = 72,
) -> None:
    """Try everything on this machine, without AWS.

    Images go through a local queue and application, and become cut-outs and a report.
    """
    # Lazy, to keep `foreedge --help` fast: loads Jinja, Pillow and OpenCV.
    from ingest.cli.demonstration import DemoOptions, run_demo

    raise typer.Exit(run_demo(DemoOptions(images, count, out, keep, seed), Console()))
