"""Status lines on the terminal, and CSV tables."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.status import Status

INTERRUPTED = 130
"""Exit code after Ctrl-C."""


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Beginnings of a cell that a spreadsheet may run as a formula (OWASP, CSV injection)."""


def visible(text: str) -> str:
    """Return a text of others for a terminal: what is not printable as an escape, on one line.

    A key may contain control sequences, line breaks, and marks that turn the direction of writing.
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


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
        _write_rows(sys.stdout, columns, cells)
        return
    with Path(target).open("w", encoding="utf-8", newline="") as file:
        _write_rows(file, columns, cells)


def _write_rows(file: TextIO, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(rows)


def _without_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


@contextmanager
def status_line() -> Iterator[Status]:
    """Show a line that says what is being done, if the standard error is a terminal."""
    with Console(stderr=True).status("") as shown:
        yield shown


@contextmanager
def running_count(what: str = "records read") -> Iterator[Callable[[int], None]]:
    """Show a line with a count, and yield the function that adds to it."""
    total = 0
    with status_line() as shown:

        def add(number: int) -> None:
            nonlocal total
            total += number
            shown.update(f"{total:,} {what}")

        yield add
