"""``foreedge demo``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from ingest.cli.demo_folder import MOST_IMAGES, results_folder
from ingest.cli.exit_codes import STALLED
from ingest.cli.options import JsonOption, home_path
from ingest.cli.terminal import open_terminal, print_json

ImagesOption = Annotated[
    Path | None,
    typer.Option(
        parser=home_path,
        metavar="PATH",
        help="Folder of your own images. Default: photographs of ours.",
    ),
]
CountOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=MOST_IMAGES,
        help="Number of photographs. A quarter, six at most, are real ones.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        parser=home_path,
        metavar="PATH",
        help="Folder for the cut-outs and the report. Default: out/demo, or out/images/ and the "
        "name of the folder of your images. Results of other images of yours are refused and kept.",
    ),
]
KeepOption = Annotated[bool, typer.Option("--keep", help="Keep everything running until Ctrl-C.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the drawn photographs.")]


def demo(
    images: ImagesOption = None,
    count: CountOption = 24,
    out: OutOption = None,
    keep: KeepOption = False,
    seed: SeedOption = 72,
    as_json: JsonOption = False,
) -> None:
    """Try everything on this machine, without AWS.

    Images go through a local queue and application, and become cut-outs and a report.
    """
    # Lazy, to keep `foreedge --help` fast: loads Jinja, Pillow and OpenCV.
    from ingest.cli.demonstration import DemoOptions, run_demo

    console = open_terminal(as_json=as_json)
    out = out or results_folder(images)
    code = run_demo(DemoOptions(images, count, out, keep, seed), console)
    if as_json and code != STALLED:
        summary = orjson.loads((out / "report.json").read_bytes())
        del summary["jobs"]
        print_json({**summary, "report_html": str(out / "report.html")})
    raise typer.Exit(code)
