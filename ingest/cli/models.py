"""``foreedge models``: list the models, and fetch, verify and find their weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from ingest.cli.exit_codes import FAILED
from ingest.cli.options import JsonOption
from ingest.cli.terminal import open_terminal, print_json, print_line
from ingest.local.processes import terminate_as_interrupt
from serve_app.config import AppConfig
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.fetch import PACKAGED_WEIGHTS, fetch_weights
from serve_app.models.registry import BUNDLED_MODEL, find_downloaded_file, locate_weights

models_app = typer.Typer(
    no_args_is_help=True, help="List the models, fetch, verify and measure them."
)

NamesArgument = Annotated[list[str], typer.Argument(help="Names of models, as in the list.")]
OptionalNamesArgument = Annotated[
    list[str] | None, typer.Argument(help="Names of models. Default: those on this machine.")
]
NameArgument = Annotated[str, typer.Argument(help="Name of a model, as in the list.")]
FromOption = Annotated[
    Path | None,
    typer.Option("--from", help="File, or folder with NAME.onnx, instead of a download."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="bfloat16 or float16, by OpenVINO. Default: the one that this processor runs well.",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        help="Folder of images to measure on, with true masks as NAME.mask.png if there are any.",
        exists=True,
        file_okay=False,
    ),
]

CalibrationOption = Annotated[
    Path,
    typer.Option(
        "--calibration",
        help="Folder of images like those to come. Other images than those of --images.",
        exists=True,
        file_okay=False,
    ),
]
AccuracyOption = Annotated[
    Literal["close", "fast"],
    typer.Option("--accuracy", help="Accuracy that the search for layers in float32 aims at."),
]


@models_app.command("list")
def print_models(as_json: JsonOption = False) -> None:
    """List every model with its input, its licence and the place of its weights."""
    config = AppConfig.load()
    if as_json:
        for name, facts in MODEL_FACTS.items():
            path = find_downloaded_file(name, config)
            print_json(
                {
                    "model": name,
                    "input_px": facts.size_px,
                    "licence": facts.licence,
                    "commercial_use": facts.commercial_use,
                    "bundled": name == BUNDLED_MODEL,
                    "path": None if path is None else str(path),
                }
            )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "input", "licence", "weights"):
        table.add_column(heading, overflow="fold")
    for name, facts in MODEL_FACTS.items():
        licence = facts.licence if facts.commercial_use else f"{facts.licence}, not commercial"
        table.add_row(name, f"{facts.size_px} px", licence, _place(name, config))
    open_terminal().print(table, highlight=False)


@models_app.command("fetch")
def fetch_models(
    names: NamesArgument, source: FromOption = None, as_json: JsonOption = False
) -> None:
    """Fetch weights and compare them with rembg's release."""
    if source is not None and source.is_file() and len(names) > 1:
        raise InvalidConfig(f"--from {source} is one file, and {len(names)} models are named.")
    config = AppConfig.load()
    with terminate_as_interrupt():
        for name in names:
            path = fetch_weights(name, config, source, show_progress=sys.stderr.isatty())
            if as_json:
                print_json({"model": name, "path": str(path), "bytes": path.stat().st_size})
            else:
                print_line(f"{name}  {_described(path)}")


@models_app.command("verify")
def verify_models(names: OptionalNamesArgument = None, as_json: JsonOption = False) -> None:
    """Compare the weights on this machine with rembg's release. Exits with 1 if any differ."""
    config = AppConfig.load()
    present = [name for name in MODEL_FACTS if find_downloaded_file(name, config)]
    failed = 0
    for name in names or [BUNDLED_MODEL, *present]:
        found: dict[str, Any] = {"model": name, "ok": True}
        try:
            found["path"] = str(locate_weights(name, config).path)
            line = f"{name}  ok  {found['path']}"
        except ForeedgeError as error:
            failed += 1
            found |= {"ok": False, "code": error.code, "detail": error.message}
            line = f"{name}  {error.code}: {error.message}"
        if as_json:
            print_json(found)
        else:
            print_line(line)
    if failed:
        raise typer.Exit(FAILED)


@models_app.command("path")
def print_model_path(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print the path of a model's weights on this machine."""
    path = str(locate_weights(name, AppConfig.load()).path)
    if as_json:
        print_json({"model": name, "path": path})
    else:
        print_line(path)


@models_app.command("gate")
def pass_model_gate(
    name: NameArgument,
    precision: PrecisionOption = None,
    images: ImagesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure whether a model may serve in another precision on this machine.

    Writes the file that is then served, and what was measured. Exits with 1 if no accuracy was
    reached.
    """
    # Lazy: no other command of the group loads an engine.
    from ingest.cli.gate import measure_and_write

    if not measure_and_write(name, precision, images, as_json=as_json):
        raise typer.Exit(FAILED)


@models_app.command("quantize")
def quantize_model_file(
    name: NameArgument,
    calibration: CalibrationOption,
    accuracy: AccuracyOption = "fast",
    images: ImagesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an int8 graph of a model, and measure whether it may serve on this machine.

    It searches the layers that must stay in float32, and shows each step. Writes the file that is
    then served, and what was measured. Exits with 1 if no accuracy was reached, or if int8 is not
    faster here.
    """
    # Lazy: no other command of the group loads an engine.
    from ingest.cli.quantize import quantize_and_write

    if not quantize_and_write(name, calibration, accuracy, images, as_json=as_json):
        raise typer.Exit(FAILED)


def _place(name: str, config: AppConfig) -> str:
    if name == BUNDLED_MODEL:
        return "bundled"
    path = find_downloaded_file(name, config)
    if path is not None:
        return _described(path)
    source = "package index" if name in PACKAGED_WEIGHTS else "rembg's release"
    return f"not here, {source}"


def _described(path: Path) -> str:
    return f"{path} ({path.stat().st_size / 1e6:.1f} MB)"
