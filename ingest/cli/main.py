"""The ``foreedge`` command: its subcommands and exit codes."""

from __future__ import annotations

import errno
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

from ingest.cli.bench_node import bench_node
from ingest.cli.bulk import bulk
from ingest.cli.catalog import catalog_app
from ingest.cli.demo import demo
from ingest.cli.doctor import doctor
from ingest.cli.exit_codes import exit_code_of
from ingest.cli.folder import folder
from ingest.cli.ledger_commands import cancel, runs
from ingest.cli.models import models_app
from ingest.cli.plan import plan
from ingest.cli.repair import redrive, verify
from ingest.cli.runs import errors, report, status
from ingest.cli.serve import serve
from ingest.cli.smoke import smoke
from ingest.cli.terminal import discard_output, print_line
from serve_app.error_text import visible
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.version import find_version

VersionOption = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Remove the background from images, from one over HTTP to millions from a queue.",
    epilog="Exit codes: 0 success. 1 images failed, results are missing, a check failed, or "
    "another attempt may cure it. 2 wrong usage or configuration, or weights that are not here. "
    "3 a run that was waited for has stalled. 4 SQS, S3 or a database did not answer. "
    "130 interrupted by Ctrl-C. 141 the program that reads the output has ended.",
    invoke_without_command=True,
)
_APPLICATION: tuple[Callable[..., None], ...] = (
    demo,
    serve,
    folder,
    smoke,
    doctor,
    plan,
    bench_node,
)
_RUNS: tuple[Callable[..., None], ...] = (
    bulk,
    runs,
    status,
    report,
    errors,
    verify,
    redrive,
    cancel,
)
for _command in _APPLICATION:
    app.command(rich_help_panel="Application")(_command)
app.add_typer(models_app, name="models", rich_help_panel="Application")
app.add_typer(catalog_app, name="catalog", rich_help_panel="Application")
for _command in _RUNS:
    app.command(rich_help_panel="Runs")(_command)

_CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
"""Numbers of the errors of a full or broken disk. A write that fails so does not name its file."""

_EMPTY_OPTION = re.compile(r"(--[a-z-]+)=\s*")


@app.callback()
def print_version(version: VersionOption = False) -> None:
    """Print the version if that is asked for."""
    if version:
        print_line(f"foreedge {find_version()}")
        raise typer.Exit


def refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse an empty argument: in most cases it is a variable of the shell that is not set.

    No option takes an empty text. As a path it would stand for the current folder, and as the id
    of a run or a list of books for the default.

    Raises:
        InvalidConfig: An argument is empty.
    """
    for before, argument in itertools.pairwise(["foreedge", *arguments]):
        option = _EMPTY_OPTION.fullmatch(argument)
        if option is not None or not argument.strip():
            place = option[1] if option else f"the argument after {before}"
            raise InvalidConfig(
                f"{place} is empty. Is a variable of the shell not set? Write . for this folder"
            )


def main() -> None:
    """Run the command line and exit."""
    try:
        refuse_empty(sys.argv[1:])
        app()
    except ForeedgeError as error:
        _exit(error)
    except OSError as error:
        # A file or folder that an option names. Whatever else fails has another type by now.
        if error.filename is not None:
            _exit(InvalidConfig(f"cannot use {error.filename}: {error.strerror}"))
        if error.errno not in _CANNOT_WRITE:
            raise
        discard_output()
        _exit(InvalidConfig(f"the output cannot be written: {error.strerror}"))


def _exit(error: ForeedgeError) -> NoReturn:
    message = visible(" ".join(error.message.split()))
    print(f"error: {error.code}: {message}", file=sys.stderr)
    sys.exit(exit_code_of(error))
