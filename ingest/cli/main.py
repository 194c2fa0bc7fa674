"""The ``foreedge`` command: its subcommands and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from ingest.cli.bulk import bulk
from ingest.cli.demo import demo
from ingest.cli.models import models_app
from ingest.cli.plan import plan
from ingest.cli.repair import redrive, verify
from ingest.cli.runs import errors, report, status
from ingest.cli.serve import serve
from ingest.cli.smoke import smoke
from ingest.cli.terminal import visible
from serve_app.errors import ForeedgeError, InvalidConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Remove the background from images, from one over HTTP to millions from a queue.",
    epilog="Exit codes: 0 success. 1 images failed, results are missing, or a service did not "
    "answer. 2 wrong usage or configuration. 130 interrupted by Ctrl-C.",
)
_APPLICATION: tuple[Callable[..., None], ...] = (demo, serve, smoke, plan)
_RUNS: tuple[Callable[..., None], ...] = (bulk, status, report, errors, verify, redrive)
for _command in _APPLICATION:
    app.command(rich_help_panel="Application")(_command)
app.add_typer(models_app, name="models", rich_help_panel="Application")
for _command in _RUNS:
    app.command(rich_help_panel="Runs")(_command)


def main() -> None:
    """Run the command line and exit."""
    try:
        app()
    except ForeedgeError as error:
        _exit(error)
    except OSError as error:
        # A file or folder that an option names. Whatever else fails has another type by now.
        if error.filename is None:
            raise
        _exit(InvalidConfig(f"cannot use {error.filename}: {error.strerror}"))


def _exit(error: ForeedgeError) -> NoReturn:
    message = visible(" ".join(error.message.split()))
    print(f"error: {error.code}: {message}", file=sys.stderr)
    sys.exit(1 if error.retry == "transient" else 2)
