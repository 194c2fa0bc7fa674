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


def write_csv(target: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table as CSV to a file, or to the standard output if the target is ``-``."""
    if target == "-":
        _write_rows(sys.stdout, columns, rows)
        return
    with Path(target).open("w", encoding="utf-8", newline="") as file:
        _write_rows(file, columns, rows)


def _write_rows(file: TextIO, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(rows)


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
