"""The commands that look at a run: status, report and errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape

from ingest.cli.options import (
    CodeOption,
    ConfigOption,
    CsvOption,
    EndpointOption,
    LedgerOption,
    QueueOption,
    RunArgument,
    ledger_of,
    queue_of,
)
from ingest.cli.progress import describe_run, show_progress
from ingest.cli.settings import load_config
from ingest.cli.terminal import counting, write_csv
from ingest.runs.folder import RunFolder
from ingest.runs.manifest import RunManifest, read_manifest
from ingest.runs.records import FAILED, Record, Records
from ingest.runs.report import read_report, source_url
from ingest.runs.report_page import write_report
from ingest.runs.status import RunMonitor, follow
from ingest.sqs.backlog import Backlog, read_backlog
from serve_app.config import AppConfig
from serve_app.errors import QueueUnavailable
from serve_app.storage import open_store

app = typer.Typer()

_SHOWN = 20
_QUEUE_PAUSE_S = 60
_COLUMNS = ("job_id", "source", "code", "message", "receive_count", "finished_at")


@app.command()
def status(
    run: RunArgument,
    watch_it: Annotated[
        bool, typer.Option("--watch", help="Until every job has a result.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Show how far a run is: results, failures by code, what the queue holds."""
    console = Console()
    app_config = load_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = ledger_of(app_config), open_store(app_config)
    folder = RunFolder(store, ledger, run)
    manifest = read_manifest(folder)
    tally = RunMonitor(folder, manifest, backlog_of(app_config, manifest))
    if watch_it and not as_json:
        watch(console, tally)
    if watch_it:
        for now in follow(tally):
            print(orjson.dumps(now.as_dict()).decode(), flush=True)
        raise typer.Exit(1 if now.counts["failed"] else 0)
    with counting() as on_read:
        now = tally.update(on_read)
    if as_json:
        print(orjson.dumps(now.as_dict()).decode())
    else:
        console.print(describe_run(now), highlight=False)


def watch(console: Console, tally: RunMonitor) -> None:
    """Show a run until its end, and then end the command; 1 where an image failed."""
    try:
        now = show_progress(console, follow(tally), time.monotonic)
    except KeyboardInterrupt:
        console.print("Not watched any more; the run goes on.")
        raise typer.Exit(130) from None
    console.print(describe_run(now), highlight=False)
    raise typer.Exit(1 if now.counts["failed"] else 0)


@app.command()
def report(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("out/report"),
    pictures: Annotated[
        int,
        typer.Option(
            min=0,
            max=1_000,
            help="Results in the sample; doubtful masks and failures come on top, up to 200 each. "
            "0: no pictures.",
        ),
    ] = 48,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Write report.json (every job) and report.html (a page to judge the run by)."""
    app_config = load_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = ledger_of(app_config), open_store(app_config)
    with counting() as on_read, read_report(RunFolder(store, ledger, run), on_read) as content:
        page = write_report(content, store, app_config, out, pictures)
    console = Console()
    console.print(describe_run(content.standing), highlight=False)
    console.print(f"Report  {page}", highlight=False, soft_wrap=True)


@app.command()
def errors(
    run: RunArgument,
    code: CodeOption = None,
    to_csv: CsvOption = None,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """List the jobs of a run that failed.

    Also of the runs "live" (messages of other producers) and "invalid" (messages that could not
    be read).
    """
    app_config = load_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = ledger_of(app_config), open_store(app_config)
    folder = RunFolder(store, ledger, run)
    with Records(folder, keep=["failed"]) as records:
        with counting() as on_read:
            if not records.update(on_read):
                # No results and no manifest: there is no such run.
                read_manifest(folder)
        _, codes, _ = records.counts()
        where = "WHERE rank = ? AND (? IS NULL OR code = ?) ORDER BY code, position"
        found = records.kept(where, [FAILED, code, code])
        if to_csv is not None:
            write_csv(to_csv, _COLUMNS, map(_error_row, found))
            return
        console = Console()
        shown = codes[code] if code is not None else codes.total()
        console.print(f"{shown:,} failed jobs", highlight=False)
        for name, number in codes.most_common():
            if code in (None, name):
                console.print(f"  {escape(name)}: {number:,}", highlight=False)
        for _, record in zip(range(_SHOWN), found, strict=False):
            line = f"{source_url(record) or record['job_id']}: {record.get('code')}: "
            line += str(record.get("message"))
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if shown > _SHOWN:
            console.print(f"… and {shown - _SHOWN:,} more; all of them: --csv FILE")


def backlog_of(config: AppConfig, manifest: RunManifest) -> Callable[[], Backlog | None]:
    """Return what asks the run's queue for its backlog; a queue that is away has none."""
    client, url = queue_of(config, manifest)

    again_at = 0.0

    def ask() -> Backlog | None:
        nonlocal again_at
        if time.monotonic() < again_at:
            return None
        try:
            return read_backlog(client, url)
        except QueueUnavailable:
            # It is tried several times before this, which must not hold up every look at the run.
            again_at = time.monotonic() + _QUEUE_PAUSE_S
            return None

    return ask


def _error_row(record: Record) -> Iterable[Any]:
    values = record | {"source": source_url(record)}
    return (values.get(name) for name in _COLUMNS)
