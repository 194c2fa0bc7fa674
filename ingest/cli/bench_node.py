"""``foreedge bench-node``: what this machine can do with a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.cli.options import JsonOption
from ingest.cli.terminal import open_terminal, print_json, print_line
from ingest.units import counted
from serve_app.config import AppConfig
from serve_app.contracts.precision import Accuracy

if TYPE_CHECKING:
    from ingest.node.report import NodeReport

ModelOption = Annotated[
    str, typer.Option("--model", help="Model to measure, whose weights are on this machine.")
]
SecondsOption = Annotated[
    float,
    typer.Option(
        "--seconds",
        min=0.1,
        max=3_600,
        help="Seconds for which each speed is measured.",
    ),
]
OutOption = Annotated[
    Path,
    typer.Option("--out", help="JSON file for the report. The settings go next to it, as .yaml."),
]
AccuracyOption = Annotated[Accuracy, typer.Option("--accuracy", help="Accuracy of the settings.")]
EmulatedOption = Annotated[
    bool,
    typer.Option(
        "--emulated",
        help="The processor is an emulated one: report the kernels, and no times.",
    ),
]


def bench_node(
    model: ModelOption = "u2netp",
    seconds: SecondsOption = 4.0,
    accuracy: AccuracyOption = "exact",
    out: OutOption = Path("node.json"),
    emulated: EmulatedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure every engine and precision that this machine can run.

    Writes speed, memory, masks and kernels to one file, which foreedge plan reads as a profile.
    Next to it are the fastest settings, for foreedge serve --config. It also writes the files that
    a replica needs to serve in another precision. It takes about three minutes.
    """
    # Lazy: no other command loads an engine.
    from ingest.cli.gate import bundled_images
    from ingest.node.bench import measure_node
    from ingest.node.report import (
        check_report_path,
        settings_path,
        write_node_report,
        write_node_settings,
    )

    # Before minutes of measurements.
    check_report_path(out)
    settings = None if emulated else settings_path(out)
    terminal = open_terminal(as_json=True)
    with terminal.status("") as status:
        report = measure_node(
            model,
            AppConfig.load(),
            [] if emulated else bundled_images(),
            seconds=seconds,
            emulated=emulated,
            on_step=status.update,
        )
    write_node_report(report, out)
    if settings is not None:
        write_node_settings(report, accuracy, settings)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    _print_report(report)
    print_line(f"{out}" if settings is None else f"{out}, {settings} ({accuracy})")


def _print_report(report: NodeReport) -> None:
    print_line(f"{report.model} on {report.cpu}, {report.cores} cores")
    if report.emulated:
        print_line(
            "  The processor is emulated. Its times would mean nothing, so none were measured."
        )
    for speed in report.speeds:
        title = f"{speed.engine} {speed.precision}, {counted(speed.threads, 'thread')}"
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
