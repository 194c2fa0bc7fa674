"""The commands that look at a run: ``foreedge status``, ``report`` and ``errors``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.markup import escape

from ingest.cli.options import (
    CodeOption,
    ConfigOption,
    CsvOption,
    EndpointOption,
    JsonOption,
    LedgerOption,
    QueueOption,
    RawOption,
    RunArgument,
    Session,
    open_session,
)
from ingest.cli.progress import describe_run, show_progress
from ingest.cli.terminal import INTERRUPTED, running_count, visible, write_csv
from ingest.runs.manifest import RunManifest, read_manifest
from ingest.runs.records import Record, Records
from ingest.runs.report import read_report, source_url
from ingest.runs.status import RunMonitor, follow
from ingest.sqs.backlog import Backlog, read_backlog
from ingest.sqs.queue_client import QueueClient
from serve_app.errors import QueueUnavailable

_SHOWN_FAILURES = 20
_QUEUE_PAUSE_S = 60
_COLUMNS = ("job_id", "source", "code", "message", "receive_count", "finished_at")

WatchOption = Annotated[bool, typer.Option("--watch", help="Watch until every job has a result.")]
ReportOutOption = Annotated[Path, typer.Option(help="Folder of the report.")]
PicturesOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=1_000,
        help="Number of sample results on the page. Up to 200 doubtful masks and 200 failures are "
        "added. 0 leaves out all images.",
    ),
]


def status(
    run: RunArgument,
    watch: WatchOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Show the progress of a run.

    It counts the results and the failures by code, and shows what the queue holds.
    """
    console = Console()
    session = open_session(config, queue, ledger_bucket, endpoint_url)
    manifest = read_manifest(session.run_folder(run))
    if watch and not as_json:
        watch_run(console, session, manifest)
    monitor = _monitor(session, manifest)
    if watch:
        for now in follow(monitor):
            print(orjson.dumps(now.as_dict()).decode(), flush=True)
        raise typer.Exit(1 if now.counts["failed"] else 0)
    with running_count() as on_read:
        now = monitor.update(on_read)
    if as_json:
        print(orjson.dumps(now.as_dict()).decode())
    else:
        console.print(describe_run(now), highlight=False)


def watch_run(console: Console, session: Session, manifest: RunManifest) -> NoReturn:
    """Show the progress of a run until it ends, and then exit: with 1 if an image failed."""
    try:
        now = show_progress(console, follow(_monitor(session, manifest)), time.monotonic)
    except KeyboardInterrupt:
        console.print("Stopped watching. The run continues.")
        raise typer.Exit(INTERRUPTED) from None
    console.print(describe_run(now), highlight=False)
    raise typer.Exit(1 if now.counts["failed"] else 0)


def report(
    run: RunArgument,
    out: ReportOutOption = Path("out/report"),
    pictures: PicturesOption = 48,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Write report.json and report.html of a run.

    report.json lists every job. report.html is a page of numbers and sample results.
    """
    # Lazy, to keep `foreedge --help` fast: loads Jinja, Pillow and OpenCV.
    from ingest.runs.report_page import write_report

    session = open_session(config, queue, ledger_bucket, endpoint_url)
    folder = session.run_folder(run)
    with running_count() as on_read, read_report(folder, on_read) as content:
        page = write_report(content, session.store, session.config, out, pictures)
    console = Console()
    console.print(describe_run(content.status), highlight=False)
    console.print(f"Report  {page}", highlight=False, soft_wrap=True)


def errors(
    run: RunArgument,
    code: CodeOption = None,
    to_csv: CsvOption = None,
    raw: RawOption = False,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """List the jobs of a run that failed.

    The id "live" stands for messages of other producers, and "invalid" for unreadable messages.
    """
    session = open_session(config, queue, ledger_bucket, endpoint_url)
    folder = session.run_folder(run)
    with Records(folder, keep=["failed"]) as records:
        with running_count() as on_read:
            if not records.update(on_read):
                # Without results and without a manifest, there is no such run.
                read_manifest(folder)
        failures = records.failures(code)
        if to_csv is not None:
            write_csv(to_csv, _COLUMNS, map(_failure_row, failures), raw=raw)
            return
        _, codes, _ = records.counts()
        counts = {name: n for name, n in codes.most_common() if code in (None, name)}
        _print_failures(Console(), counts, failures)


def _print_failures(console: Console, counts: dict[str, int], failures: Iterable[Record]) -> None:
    total = sum(counts.values())
    console.print(f"{total:,} failed jobs", highlight=False)
    for code, count in counts.items():
        console.print(f"  {escape(visible(code))}: {count:,}", highlight=False)
    for record in itertools.islice(failures, _SHOWN_FAILURES):
        line = f"{source_url(record) or record['job_id']}: {record.get('code')}: "
        line += str(record.get("message"))
        console.print(visible(line), markup=False, highlight=False, soft_wrap=True)
    if total > _SHOWN_FAILURES:
        console.print(f"… and {total - _SHOWN_FAILURES:,} more. To list all: --csv FILE")


def _failure_row(record: Record) -> Iterable[Any]:
    values = record | {"source": source_url(record)}
    return (values.get(name) for name in _COLUMNS)


def _monitor(session: Session, manifest: RunManifest) -> RunMonitor:
    probe = _BacklogProbe(session.queue_client(manifest))
    return RunMonitor(session.run_folder(manifest.run_id), manifest, probe)


class _BacklogProbe:
    """Reads the backlog of a queue, with a pause of a minute while the queue is unavailable.

    A failed attempt takes long, because the client retries. Without the pause it would hold up
    every look at the run.
    """

    def __init__(self, queue: QueueClient) -> None:
        self._queue = queue
        self._paused_until_s = 0.0

    def __call__(self) -> Backlog | None:
        """Return the backlog, or None if the queue is unavailable."""
        if time.monotonic() < self._paused_until_s:
            return None
        try:
            return read_backlog(self._queue)
        except QueueUnavailable:
            self._paused_until_s = time.monotonic() + _QUEUE_PAUSE_S
            return None
