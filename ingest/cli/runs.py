"""The commands that look at a run: ``foreedge status``, ``report`` and ``errors``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

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
    UnusedQueueOption,
    open_session,
)
from ingest.cli.progress import describe_run
from ingest.cli.terminal import open_terminal, print_json, running_count, write_csv
from ingest.cli.watch import STALLED_AFTER, run_monitor, watch_run
from ingest.messages.build import INVALID_RUN
from ingest.runs.live import LIVE_RUN, day_of_run, run_id_of_day
from ingest.runs.manifest import manifest_of
from ingest.runs.records import Record, Records
from ingest.runs.report import read_report, source_url
from ingest.runs.status import RunMonitor
from ingest.units import counted, parse_duration
from serve_app.error_text import visible
from serve_app.errors import ForeedgeError, InvalidConfig

_SHOWN_FAILURES = 20
_COLUMNS = ("job_id", "source", "code", "message", "receive_count", "finished_at")

WatchOption = Annotated[bool, typer.Option("--watch", help="Watch until every job has a result.")]
StalledAfterOption = Annotated[
    str,
    typer.Option(
        "--stalled-after",
        help="With --watch: time without messages and results after which the run is stalled.",
    ),
]
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
    stalled_after: StalledAfterOption = STALLED_AFTER,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Show the progress of a run.

    It counts the results and the failures by code, and shows what the queue holds. The id "live"
    stands for today's messages without a run.
    """
    session = open_session(config, queue, ledger_bucket, endpoint_url)
    folder = session.run_folder(run)
    manifest = manifest_of(folder)
    if watch:
        if manifest is None:
            raise InvalidConfig(
                f"{run} has no end to wait for: nobody knows how many messages without a run will "
                "come. Leave out --watch"
            )
        target = session.queue_client(manifest)
        watch_run(folder, manifest, target, parse_duration(stalled_after), as_json=as_json)
    if manifest is None:
        monitor = RunMonitor(folder, None)
    else:
        monitor = run_monitor(folder, manifest, session.queue_client(manifest))
    with running_count() as on_read:
        now = monitor.update(on_read)
    if as_json:
        print_json(now.as_dict())
    else:
        open_terminal().print(describe_run(now), highlight=False)


def report(
    run: RunArgument,
    out: ReportOutOption = Path("out/report"),
    pictures: PicturesOption = 48,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    queue: UnusedQueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Write report.json and report.html of a run.

    report.json lists every job. report.html is a page of numbers and sample results. The id "live"
    stands for today's messages without a run.
    """
    # Lazy, to keep `foreedge --help` fast: loads Jinja, Pillow and OpenCV.
    from ingest.runs.report_page import write_report

    session = open_session(config, queue, ledger_bucket, endpoint_url)
    folder = session.run_folder(run)
    refused: list[ForeedgeError] = []
    with running_count() as on_read, read_report(folder, on_read) as content:
        page = write_report(
            content, session.store, session.config, out, pictures, on_refused=refused.append
        )
    reason = f"{refused[0].code}: {refused[0].message}" if refused else None
    if as_json:
        files = {"report_json": str(out / "report.json"), "report_html": str(page)}
        unread = {"unread_images": len(refused), "unread_reason": reason}
        print_json({**content.status.as_dict(), **files, **unread})
        return
    console = open_terminal()
    console.print(describe_run(content.status), highlight=False)
    if reason is not None:
        lacking = counted(len(refused), "image")
        text = f"[yellow]The page lacks {lacking} that could not be read.[/yellow] "
        console.print(f"{text}{escape(visible(reason))}", highlight=False, soft_wrap=True)
    console.print(f"Report  {visible(str(page))}", markup=False, highlight=False, soft_wrap=True)


def errors(
    run: RunArgument,
    code: CodeOption = None,
    to_csv: CsvOption = None,
    raw: RawOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    queue: UnusedQueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """List the jobs of a run that failed.

    The id "live" stands for today's messages without a run, "live-YYYY-MM-DD" for those of an
    earlier day in UTC, and "invalid" for unreadable messages. With --json, each failure is
    one line.
    """
    session = open_session(config, queue, ledger_bucket, endpoint_url)
    folder = session.run_folder(run)
    with Records(folder, keep=["failed"]) as records:
        with running_count() as on_read:
            if not records.update(on_read) and folder.run_id != INVALID_RUN:
                # Without results and without a manifest, there is no such run.
                manifest_of(folder)
        codes = records.counts().codes
        counts = {name: n for name, n in codes.most_common() if code in (None, name)}
        failures = records.failures(code)
        if to_csv is not None:
            write_csv(to_csv, _COLUMNS, map(_failure_row, failures), raw=raw)
        elif as_json:
            for record in failures:
                print_json(dict(zip(_COLUMNS, _failure_row(record), strict=True)))
        else:
            _print_failures(open_terminal(), counts, failures)
    if run == LIVE_RUN and not counts and (today := day_of_run(folder.run_id)):
        _name_the_days(open_terminal(as_json=as_json or to_csv is not None), today)


def _name_the_days(console: Console, today: date) -> None:
    """Say that today's messages are shown, and how to see those of another day.

    Args:
        console: Terminal for the line.
        today: Day in UTC whose messages are shown.
    """
    before = run_id_of_day(today - timedelta(days=1))
    console.print(
        f"{LIVE_RUN} is today in UTC, {today}. The day before: foreedge errors {before}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _print_failures(console: Console, counts: dict[str, int], failures: Iterable[Record]) -> None:
    total = sum(counts.values())
    console.print(counted(total, "failed job"), highlight=False)
    for code, count in counts.items():
        console.print(f"  {visible(code)}: {count:,}", markup=False, highlight=False)
    for record in itertools.islice(failures, _SHOWN_FAILURES):
        line = f"{source_url(record) or record['job_id']}: {record.get('code')}: "
        line += str(record.get("message"))
        console.print(visible(line), markup=False, highlight=False, soft_wrap=True)
    if total > _SHOWN_FAILURES:
        console.print(f"… and {total - _SHOWN_FAILURES:,} more. To list all: --csv FILE")


def _failure_row(record: Record) -> Iterable[Any]:
    values = record | {"source": source_url(record)}
    return (values.get(name) for name in _COLUMNS)
