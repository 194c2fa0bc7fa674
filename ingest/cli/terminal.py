"""What commands show while they work, and the tables that they write."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.status import Status


def write_csv(place: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table to a file, or to the standard output where ``place`` is ``-``."""
    with ExitStack() as stack:
        if place == "-":
            file: TextIO = sys.stdout
        else:
            file = stack.enter_context(Path(place).open("w", encoding="utf-8", newline=""))
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


@contextmanager
def status() -> Iterator[Status]:
    """Show what is being done, on the standard error, where that is a terminal."""
    with Console(stderr=True).status("") as shown:
        yield shown


@contextmanager
def counting(what: str = "records read") -> Iterator[Callable[[int], None]]:
    """Show how many of something there were so far."""
    total = 0
    with status() as shown:

        def count(number: int) -> None:
            nonlocal total
            total += number
            shown.update(f"{total:,} {what}")

        yield count
