"""What commands show of a run: a bar while it proceeds, and its status as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ingest.runs.status import Rate, RunStatus
from ingest.units import format_duration


def show_progress(
    console: Console, steps: Iterator[RunStatus], clock: Callable[[], float]
) -> RunStatus:
    """Draw a bar while a run proceeds; return how far it was in the end.

    Args:
        console: Where to.
        steps: See ``follow``.
        clock: A monotonic clock, in seconds.
    """
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    last: RunStatus | None = None
    rate = Rate(clock)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Cutting out", total=None, count="", detail="")
        for now in steps:
            last = now
            per_s = rate.after(now.finished)
            progress.update(
                task,
                total=now.jobs if now.listed else None,
                completed=now.finished,
                count=f"{now.finished:,} of {now.jobs:,}{'' if now.listed else ' or more'}",
                detail=_detail(now, per_s),
            )
    if last is None:
        raise ValueError("there was no step to show")
    return last


def _detail(now: RunStatus, rate: float) -> str:
    parts = []
    if now.counts["failed"]:
        codes = ", ".join(f"{escape(code)} {count:,}" for code, count in now.codes.items())
        parts.append(f"[red]{now.counts['failed']:,} failed[/red] ({codes})")
    parts.append(f"{rate:.1f} images/s")
    if now.backlog is not None:
        parts.append(f"{now.backlog.in_flight:,} in flight")
    if now.unsent:
        parts.append(f"{now.unsent:,} not sent yet")
    if rate and now.missing and now.listed:
        parts.append(f"{format_duration(now.missing / rate)} left")
    return " · ".join(parts)


def describe_run(now: RunStatus) -> str:
    """Return a run's standing as lines of text with rich's markup."""
    counts = now.counts
    lines = [
        f"[bold]{now.finished:,}[/bold] of {now.jobs:,} images have a result"
        + (f", {now.missing:,} remain" if now.missing else ""),
        f"  done     {counts['done']:,}",
    ]
    if now.unsent or not now.listed:
        lines.append(f"  [yellow]not on the queue yet: {now.unsent:,}[/yellow]")
    if counts["skipped_existing"]:
        lines.append(f"  existed  {counts['skipped_existing']:,}")
    if counts["failed"]:
        lines.append(f"  failed   [red]{counts['failed']:,}[/red]")
        lines += [f"    {escape(code)}: {count:,}" for code, count in now.codes.items()]
    if now.backlog is not None and now.missing:
        waiting, in_flight = now.backlog.waiting, now.backlog.in_flight
        lines.append(f"  queue    {waiting:,} waiting, {in_flight:,} in flight")
    if now.wall_s:
        lines.append(f"  {now.images_per_s:.2f} images/s over {now.wall_s:,.1f} s")
    return "\n".join(lines)
