"""The commands about the ledger's runs: ``foreedge runs`` and ``cancel``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ingest.cli.exit_codes import FAILED
from ingest.cli.options import (
    ConfigOption,
    EndpointOption,
    JsonOption,
    LedgerOption,
    RunArgument,
    Session,
    UnusedQueueOption,
    open_session,
)
from ingest.cli.terminal import open_terminal, print_json, status_line
from ingest.runs.cancellation import cancel_run
from ingest.runs.compaction import compact_results
from ingest.runs.live import is_live
from ingest.runs.manifest import read_manifest
from ingest.runs.run_list import ListedRun, listed_runs, prunable_keys
from ingest.units import counted, parse_duration
from serve_app.error_text import visible
from serve_app.errors import InvalidConfig, InvalidMessage

PruneOption = Annotated[
    str | None,
    typer.Option("--prune", help="Delete runs that ended longer ago, as in 90d. Asks before."),
]
CompactOption = Annotated[
    bool, typer.Option("--compact", help="Join the results of runs that ended to few objects.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Delete without a question.")]


def runs(
    prune: PruneOption = None,
    compact: CompactOption = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    queue: UnusedQueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """List the runs in the ledger, and tidy it up.

    --compact and --prune need the right to delete objects of the ledger. They delete no image and
    no result.
    """
    if compact and prune is not None:
        raise InvalidConfig("--compact and --prune are two tasks. Give one of them at a time")
    session = open_session(config, queue, ledger_bucket, endpoint_url)
    age = None if prune is None else timedelta(seconds=parse_duration(prune))
    now = datetime.now(UTC)
    with status_line() as line:
        found: list[ListedRun] = []
        damaged: dict[str, str] = {}

        def note_damaged(run_id: str, error: InvalidMessage) -> None:
            damaged[run_id] = error.message

        for run in listed_runs(session.store, session.ledger, now, note_damaged):
            found.append(run)
            line.update(f"{counted(len(found), 'run')} read")
    console = open_terminal(as_json=as_json)
    if age is not None:
        _prune(session, console, found, now - age, now, yes=yes, as_json=as_json)
    elif compact:
        _compact(console, [run for run in found if run.is_over(now)], as_json=as_json)
    elif as_json:
        for run in found:
            print_json(_as_dict(run))
    elif found:
        console.print(_table(found), highlight=False)
    elif not damaged:
        console.print("There are no runs in this ledger.")
    _name_damaged(damaged, as_json=as_json)


def _name_damaged(damaged: dict[str, str], *, as_json: bool) -> None:
    """Name the runs that cannot be read, and end with the exit code of a failure if there are any.

    Args:
        damaged: What is wrong with each, by its id.
        as_json: Whether the output is for a program.
    """
    for run_id, reason in damaged.items():
        if as_json:
            print_json({"run_id": run_id, "state": "damaged", "reason": reason})
        else:
            text = visible(f"Run {run_id} is damaged, and was left out: {reason}")
            typer.echo(text, err=True)
    if damaged:
        raise typer.Exit(FAILED)


def cancel(
    run: RunArgument,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    queue: UnusedQueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Cancel a run: its messages end as failures without being processed.

    Jobs that are being processed end as usual. The run is resumed when it is sent again.
    """
    session = open_session(config, queue, ledger_bucket, endpoint_url)
    folder = session.run_folder(run)
    if is_live(folder.run_id):
        raise InvalidConfig(f"{run} is no run: messages without one cannot be cancelled together")
    if next(folder.part_keys("results"), None) is None:
        # Without results and without a manifest, there is no such run.
        read_manifest(folder)
    cancel_run(folder)
    if as_json:
        print_json({"run_id": folder.run_id, "cancelled": True})
        return
    console = open_terminal()
    console.print(
        f"Run {folder.run_id} is cancelled. Within 30 s its messages end as failures with the code "
        "run_cancelled, and no dead letters. Those that wait for another attempt end at it.\n"
        f"To watch:   foreedge status {folder.run_id} --watch\n"
        f"To resume, repeat what sent it, with --run-id {folder.run_id}, then  foreedge redrive "
        f"{folder.run_id}",
        highlight=False,
        soft_wrap=True,
    )


def _prune(
    session: Session,
    console: Console,
    found: list[ListedRun],
    before: datetime,
    now: datetime,
    *,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete the objects of old runs, after a question."""
    old = {run.run_id: keys for run in found if (keys := prunable_keys(run, before, now))}
    objects = sum(map(len, old.values()))
    if old:
        console.print(_table([run for run in found if run.run_id in old]), highlight=False)
        if not yes and not _confirms(len(old), objects):
            old = {}
    for keys in old.values():
        session.store.delete(session.ledger.bucket, keys)
    if as_json:
        print_json({"deleted": list(old), "objects": objects if old else 0})
    else:
        console.print(f"Deleted {counted(len(old), 'run')}. No image and no result was touched.")


def _confirms(runs: int, objects: int) -> bool:
    """Ask whether runs are to be deleted, and return the answer."""
    what = f"{counted(runs, 'run')} ({counted(objects, 'object')})"
    question = f"Delete the records of {what}?"
    try:
        return typer.confirm(question, err=True)
    except typer.Abort as error:
        raise InvalidConfig(
            f"{what} would be deleted, and nobody answers. Repeat the command with --yes"
        ) from error


def _compact(console: Console, over: list[ListedRun], *, as_json: bool) -> None:
    """Join the results of runs that are over."""
    before = after = 0
    for run in over:
        done = compact_results(run.folder)
        before, after = before + done.before, after + done.after
        if as_json:
            print_json({"run_id": run.run_id, "objects_before": done.before, "objects": done.after})
    what = f"{counted(len(over), 'run')}: {counted(after, 'object')} with results"
    console.print(f"{what}, {before:,} before.")


def _table(found: list[ListedRun]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("started (UTC)", overflow="fold")
    for heading in ("images", "done", "failed"):
        table.add_column(heading, justify="right", overflow="fold")
    table.add_column("state", overflow="fold")
    for run in found:
        counts = run.status.counts
        started = run.started_at or run.last_at
        table.add_row(
            visible(run.run_id),
            f"{started.astimezone(UTC):%Y-%m-%d %H:%M}" if started else "",
            f"{run.status.expected:,}",
            f"{counts['done'] + counts['skipped_existing']:,}",
            f"{counts['failed']:,}",
            run.status.state,
        )
    return table


def _as_dict(run: ListedRun) -> dict[str, Any]:
    return {
        **run.status.as_dict(),
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "last_at": run.last_at.isoformat() if run.last_at else None,
    }
