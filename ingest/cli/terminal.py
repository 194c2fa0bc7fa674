"""What commands write: text on the terminal, JSON, and CSV tables."""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import orjson
from rich.console import Console
from rich.status import Status

from ingest.cli.exit_codes import OUTPUT_CLOSED
from serve_app.error_text import visible
from serve_app.errors import InvalidConfig

_SHOWN_EVERY_S = 0.1
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Beginnings of a cell that a spreadsheet may run as a formula (OWASP, CSV injection)."""


class Terminal(Console):
    """A console that ends the command quietly when nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        """End the command, as rich does with another exit code."""
        _end_quietly()


def open_terminal(*, as_json: bool = False) -> Terminal:
    """Return the console for text: the standard output, unless that is for JSON."""
    return Terminal(stderr=as_json)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON on the standard output."""
    with _quiet_end():
        print(orjson.dumps(value).decode(), flush=True)


def print_text(console: Console, text: str) -> None:
    """Print a line with text of others as it is, without markup."""
    console.print(visible(text), markup=False, highlight=False, soft_wrap=True)


def print_line(text: str) -> None:
    """Print a line of text as it is, without wrapping it, on the standard output."""
    with _quiet_end():
        print(visible(text), flush=True)


@contextmanager
def _quiet_end() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _end_quietly()


def discard_output() -> None:
    """Let nothing more reach the standard output, after it could not be written.

    Python writes what is left in its buffer when it ends, and would complain.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_quietly() -> None:
    discard_output()
    raise SystemExit(OUTPUT_CLOSED)


def write_csv(
    target: str, columns: Iterable[str], rows: Iterable[Iterable[Any]], *, raw: bool
) -> None:
    """Write a table as CSV to a file, or to the standard output if the target is ``-``.

    Args:
        target: Path of the file, or ``-``.
        columns: Names of the columns.
        rows: Cells of each row.
        raw: Whether cells are written as they are. Otherwise an apostrophe stands before those that
            a spreadsheet may take for a formula.
    """
    cells = rows if raw else (map(_without_formula, row) for row in rows)
    if target == "-":
        with _quiet_end():
            _write_rows(sys.stdout, columns, cells)
            sys.stdout.flush()
        return
    try:
        with Path(target).open("w", encoding="utf-8", newline="") as file:
            _write_rows(file, columns, cells)
    except OSError as error:
        raise InvalidConfig(f"cannot use {target}: {error.strerror}") from error


def _write_rows(file: TextIO, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(rows)


def _without_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def original_cell(cell: str) -> str:
    """Return a cell of a table of ``write_csv`` without the apostrophe before a formula."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


@contextmanager
def status_line() -> Iterator[Status]:
    """Show a line that says what is being done, if the standard error is a terminal."""
    with Terminal(stderr=True).status("") as shown:
        yield shown


@contextmanager
def running_count(what: str = "records read") -> Iterator[Callable[[int], None]]:
    """Show a line with a count, and yield the function that adds to it."""
    total, shown_at_s = 0, 0.0
    with status_line() as shown:

        def add(number: int) -> None:
            nonlocal total, shown_at_s
            total += number
            # A line takes longer than reading a row of a million.
            if (now_s := time.monotonic()) >= shown_at_s + _SHOWN_EVERY_S:
                shown_at_s = now_s
                shown.update(f"{total:,} {what}")

        yield add
