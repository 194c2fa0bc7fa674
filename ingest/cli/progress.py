"""Progress bars of a run, and its status as text."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ingest.runs.status import Rate, RunStatus
from ingest.sources.base import ImageSource
from ingest.units import format_duration
from serve_app.error_text import visible

_SHOWN_CODES = 50
_SHOWN_CODE_LENGTH = 100


def progress_bar(console: Console) -> Progress:
    """Return a bar whose tasks have a ``detail`` text next to them."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console)


class SendingProgress:
    """The progress of sending a run, as a task of a bar. Called after each batch of messages."""

    def __init__(self, progress: Progress, source: ImageSource) -> None:
        self._progress, self._source = progress, source
        self._task = progress.add_task("Sending", total=None, detail="")
        self._rate = Rate()

    def __call__(self, *, sent: int, listed: int, complete: bool) -> None:
        """Update the bar. See ``Observer`` for the arguments."""
        per_s = self._rate.after(sent)
        total = listed if complete else self._source.total
        detail = f"{sent:,} of {total or listed:,}{'' if total else ' found so far'}"
        detail += f" · {per_s:,.0f} messages/s"
        if total and per_s:
            detail += f" · {format_duration((total - sent) / per_s)} left"
        self._progress.update(self._task, total=total, completed=sent, detail=detail)


def show_progress(
    console: Console, steps: Iterator[RunStatus], clock: Callable[[], float]
) -> RunStatus:
    """Show a bar until a run ends, and return its last status.

    Args:
        console: The terminal.
        steps: The statuses that ``follow`` yields.
        clock: A monotonic clock, in seconds.
    """
    last: RunStatus | None = None
    rate = Rate(clock)
    with progress_bar(console) as progress:
        task = progress.add_task("Cutting out", total=None, detail="")
        for now in steps:
            last = now
            progress.update(
                task,
                total=now.expected if now.listed else None,
                completed=now.finished,
                detail=_detail(now, rate.after(now.finished)),
            )
    if last is None:
        raise ValueError("there was no status to show")
    return last


def _detail(now: RunStatus, images_per_s: float) -> str:
    parts = [f"{now.finished:,} of {now.expected:,}{'' if now.listed else ' or more'}"]
    if now.counts["failed"]:
        codes = ", ".join(f"{_shown_code(code)} {count:,}" for code, count in _first_codes(now))
        parts.append(f"[red]{now.counts['failed']:,} failed[/red] ({codes})")
    parts.append(f"{images_per_s:.1f} images/s")
    if now.backlog is not None:
        parts.append(f"{now.backlog.in_flight:,} in flight")
    if now.unsent:
        parts.append(f"{now.unsent:,} not sent yet")
    if images_per_s and now.missing and now.listed:
        parts.append(f"{format_duration(now.missing / images_per_s)} left")
    return " · ".join(parts)


def describe_run(now: RunStatus) -> str:
    """Return the status of a run as lines of text with rich's markup."""
    counts = now.counts
    lines = [
        f"[bold]{now.finished:,}[/bold] of {now.expected:,} images have a result"
        + (f", {now.missing:,} remain" if now.missing else ""),
        f"  state    {now.state}",
        f"  done     {counts['done']:,}",
    ]
    if now.jobs is None:
        lines[0] = f"[bold]{now.finished:,}[/bold] images have a result ({now.run_id}, UTC)"
    if now.unsent or not now.listed:
        lines.append(f"  [yellow]not sent yet: {now.unsent:,}[/yellow]")
    if counts["skipped_existing"]:
        lines.append(f"  skipped  {counts['skipped_existing']:,} (the result already existed)")
    if counts["failed"]:
        lines.append(f"  failed   [red]{counts['failed']:,}[/red]")
        lines += [f"    {_shown_code(code)}: {count:,}" for code, count in _first_codes(now)]
        if len(now.codes) > _SHOWN_CODES:
            lines.append(f"    … and {len(now.codes) - _SHOWN_CODES:,} more codes")
    if now.unlisted:
        lines.append(f"  {now.unlisted:,} results are of jobs that are not in the run's list")
    if now.backlog is not None and now.missing:
        waiting, in_flight = now.backlog.waiting, now.backlog.in_flight
        lines.append(f"  queue    {waiting:,} waiting, {in_flight:,} in flight")
    if now.queue_trouble is not None:
        lines.append(f"  [yellow]queue    {escape(visible(now.queue_trouble))}[/yellow]")
    if now.wall_s:
        lines.append(f"  {now.images_per_s:.2f} images/s over {format_duration(now.wall_s)}")
    return "\n".join([*lines, *_notes(now)])


def _notes(now: RunStatus) -> list[str]:
    """Return what must be known about a run that does not end by itself."""
    notes = []
    if now.cancelled and not now.ended:
        notes.append(
            "[yellow]Cancelled.[/yellow] To resume it, send it again with the same --run-id."
        )
    if now.stalled:
        notes.append(
            "[red]Stalled:[/red] the queue is empty, and these jobs have no result.\n"
            f"To see which, and send them again:  foreedge verify {now.run_id}"
        )
    if now.stalled and (now.unsent or not now.listed):
        notes.append(f"To send the rest, repeat what sent it, with --run-id {now.run_id}")
    return notes


def _first_codes(now: RunStatus) -> Iterator[tuple[str, int]]:
    return itertools.islice(now.codes.items(), _SHOWN_CODES)


def _shown_code(code: str) -> str:
    """Return a code of a record, which anybody who writes to the ledger chooses."""
    return escape(visible(code[:_SHOWN_CODE_LENGTH]))
