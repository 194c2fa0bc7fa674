"""``foreedge bench-node``: what this machine can do with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ingest.cli.options import JsonOption
from ingest.cli.terminal import open_terminal, print_json, print_line
from serve_app.config import AppConfig

ModelOption = Annotated[
    str, typer.Option("--model", help="Model to measure, whose weights are on this machine.")
]
SecondsOption = Annotated[
    float, typer.Option("--seconds", min=0.1, help="Seconds for which each speed is measured.")
]
OutOption = Annotated[Path, typer.Option("--out", help="File for the report, as JSON.")]


def bench_node(
    model: ModelOption = "u2netp",
    seconds: SecondsOption = 4.0,
    out: OutOption = Path("node.json"),
    as_json: JsonOption = False,
) -> None:
    """Measure every engine and precision that this machine can run.

    Writes speed, memory, masks and kernels to one file, and the files that a replica needs to
    serve in another precision. It takes about three minutes.
    """
    # Lazy: no other command loads an engine.
    from ingest.cli.gate import bundled_images
    from ingest.node.bench import measure_node, write_node_report

    terminal = open_terminal(as_json=True)
    with terminal.status("") as status:
        report = measure_node(
            model, AppConfig.load(), bundled_images(), seconds=seconds, on_step=status.update
        )
    write_node_report(report, out)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    print_line(f"{report.model} on {report.cpu}, {report.cores} cores")
    for speed in report.speeds:
        title = f"{speed.engine} {speed.precision}, {speed.threads} thread(s)"
        print_line(
            f"  {title:34} {speed.images_per_s:7.2f} images/s  {speed.cpu_s_per_image:.3f} CPU s  "
            f"{speed.peak_mb:.0f} MB"
        )
    for pair, reason in report.not_measured.items():
        print_line(f"  {pair}: {reason}")
    for kernels in report.kernels:
        names = ", ".join(f"{count} {name}" for name, count in kernels.kernels.items())
        slow = "" if kernels.fast else "  SLOW"
        print_line(f"  {kernels.engine} {kernels.precision}: {names}{slow}")
    for best in report.settings:
        print_line(
            f"  {best.accuracy:5}  segmenter.engine={best.engine} "
            f"segmenter.precision={best.precision} segmenter.accuracy={best.accuracy} "
            f"segmenter.threads={best.threads}"
        )
    print_line(str(out))
