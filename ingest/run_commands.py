"""The commands that look at a run and repair it: status, report, errors, redrive and verify."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from ingest import arguments
from ingest import redrive as redriving
from ingest.bulk import body
from ingest.ledger import RunManifest, read_manifest
from ingest.options import (
    ConfigOption,
    EndpointOption,
    LedgerOption,
    QueueOption,
    RateOption,
    RunArgument,
    ledger_of,
)
from ingest.progress import Tally, describe, follow, show
from ingest.records import FAILED, Record, Records
from ingest.report import read_report, source_url, write_report
from ingest.sending import Backlog, read_backlog, send_bodies
from ingest.verify import Missing, Verification, Verified
from serve_app.config import AppConfig
from serve_app.errors import QueueUnavailable
from serve_app.storage import aws_client, open_store

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

app = typer.Typer()

CodeOption = Annotated[str | None, typer.Option("--code", help="Only failures with this code.")]
CsvOption = Annotated[
    str | None, typer.Option("--csv", help="Write all of them as CSV to a file, or - for here.")
]

_SHOWN = 20
_ERROR_COLUMNS = ("job_id", "source", "code", "message", "receive_count", "finished_at")
_MISSING_COLUMNS = ("problem", "job_id", "source", "etag")


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
    app_config = arguments.app_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = ledger_of(app_config), open_store(app_config)
    manifest = read_manifest(store, ledger, run)
    tally = Tally(store, ledger, manifest, _backlog_of(app_config, manifest))
    if watch_it and not as_json:
        watch(console, tally)
    if watch_it:
        for now in follow(tally):
            print(orjson.dumps(now.as_dict()).decode(), flush=True)
        raise typer.Exit(1 if now.counts["failed"] else 0)
    with _counting() as on_read:
        now = tally.update(on_read)
    if as_json:
        print(orjson.dumps(now.as_dict()).decode())
    else:
        console.print(describe(now), highlight=False)


def watch(console: Console, tally: Tally) -> None:
    """Show a run until its end, and then end the command; 1 where an image failed."""
    try:
        now = show(console, follow(tally), time.monotonic)
    except KeyboardInterrupt:
        console.print("Not watched any more; the run goes on.")
        raise typer.Exit(130) from None
    console.print(describe(now), highlight=False)
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
    app_config = arguments.app_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = ledger_of(app_config), open_store(app_config)
    with _counting() as on_read, read_report(store, ledger, run, on_read) as content:
        page = write_report(content, store, app_config, out, pictures)
    console = Console()
    console.print(describe(content.standing), highlight=False)
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
    app_config = arguments.app_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = ledger_of(app_config), open_store(app_config)
    with Records(store, ledger, run, keep=["failed"]) as records:
        with _counting() as on_read:
            if not records.update(on_read):
                # No results and no manifest: there is no such run.
                read_manifest(store, ledger, run)
        _, codes, _ = records.counts()
        where = "WHERE rank = ? AND (? IS NULL OR code = ?) ORDER BY code, position"
        found = records.kept(where, [FAILED, code, code])
        if to_csv is not None:
            _write_csv(to_csv, _ERROR_COLUMNS, map(_error_row, found))
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


@app.command()
def redrive(
    run: RunArgument,
    code: CodeOption = None,
    as_they_are_now: Annotated[
        bool,
        typer.Option(
            "--as-they-are-now",
            help="Take each photograph with the content that it has now (after source_changed).",
        ),
    ] = False,
    clear_dead_letters: Annotated[
        bool,
        typer.Option(
            "--clear-dead-letters", help="Then delete these jobs from the dead-letter queue."
        ),
    ] = False,
    rate: RateOption = None,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Put the failed jobs of a run on the queue again; safe to repeat."""
    app_config = arguments.app_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = ledger_of(app_config), open_store(app_config)
    manifest = read_manifest(store, ledger, run)
    client, url = _queue_of(app_config, manifest)
    console = Console()
    with _counting("messages sent") as on_sent:
        done = redriving.redrive(
            client,
            url,
            store,
            ledger,
            manifest,
            code=code,
            as_they_are_now=as_they_are_now,
            rate=rate,
            on_sent=on_sent,
        )
    console.print(f"{len(done.job_ids):,} failed jobs are on the queue again.")
    if done.waiting:
        console.print(
            f"  {done.waiting:,} more are there since an earlier redrive and have not ended; "
            f"should they be lost: foreedge verify {run}",
            highlight=False,
        )
    if done.unreadable:
        console.print(f"  {done.unreadable:,} name no photograph, and were left.")
    if clear_dead_letters and done.job_ids:
        number = redriving.clear_dead_letters(client, url, done.job_ids)
        console.print(f"{number:,} dead letters of theirs were deleted.")
    if done.job_ids:
        console.print(f"Watch it:  foreedge status {run} --watch", highlight=False)


@app.command()
def verify(
    run: RunArgument,
    to_csv: CsvOption = None,
    enqueue_missing: Annotated[
        bool, typer.Option("--enqueue-missing", help="Put what is missing on the queue again.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also while the queue still holds messages."),
    ] = False,
    rate: RateOption = None,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Check that every job of a run has exactly one outcome, and that its object exists."""
    app_config = arguments.app_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = ledger_of(app_config), open_store(app_config)
    manifest = read_manifest(store, ledger, run)
    # The list of what is missing may go to the standard output.
    console = Console(stderr=to_csv == "-")
    with Verification(store, ledger, manifest) as verification:
        with _status() as status_line:
            found = verification.run(status_line.update)
        console.print(_describe_verified(manifest, found), highlight=False)
        number = found.without_outcome + found.without_object
        if to_csv is not None:
            _write_csv(to_csv, _MISSING_COLUMNS, map(_missing_row, verification.missing()))
        elif number:
            for _, item in zip(range(_SHOWN), verification.missing(), strict=False):
                line = f"  {item.problem}  s3://{item.entry.bucket}/{item.entry.key}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            if number > _SHOWN:
                console.print(f"  … and {number - _SHOWN:,} more; all of them: --csv FILE")
        if enqueue_missing and number:
            client, url = _queue_of(app_config, manifest)
            _check_drained(client, url, number, force)
            output, recipe = manifest.output.model_dump(), manifest.recipe.model_dump(mode="json")
            bodies = (body(run, output, recipe, item.entry) for item in verification.missing())
            with _counting("messages sent") as on_sent:
                send_bodies(client, url, bodies, on_sent, rate=rate)
            console.print(f"{number:,} jobs are on the queue again.")
    if found.jobs and not found.sound:
        raise typer.Exit(1)


def _describe_verified(manifest: RunManifest, found: Verified) -> str:
    if not found.jobs:
        return (
            f"[yellow]Run {manifest.run_id} has no list of its jobs: only runs that this version "
            f"of foreedge bulk sent do.[/yellow]\n  {found.strange:,} outcomes name "
            f"{found.objects:,} objects"
        )
    lines = [
        f"[bold]{found.ended:,}[/bold] of {found.jobs:,} jobs have exactly one outcome; "
        f"{found.objects:,} objects were looked for"
    ]
    if found.without_outcome:
        lines.append(f"  [red]{found.without_outcome:,} jobs have no outcome[/red]")
    if found.without_object:
        lines.append(f"  [red]{found.without_object:,} jobs have no object[/red]")
    if not found.listed:
        lines.append(
            "  [red]the list of jobs is not complete[/red]: the run is still being sent, or was "
            "stopped; foreedge bulk with the same --run-id goes on"
        )
    if found.failed:
        lines.append(f"  {found.failed:,} outcomes are failures: foreedge errors {manifest.run_id}")
    if found.duplicates:
        lines.append(f"  {found.duplicates:,} records were of deliveries that came again")
    if found.strange:
        lines.append(f"  {found.strange:,} outcomes are of jobs that are not in the list")
    if found.sound:
        lines.append("[green]Nothing is missing.[/green]")
    return "\n".join(lines)


def _check_drained(client: SQSClient, url: str, number: int, force: bool) -> None:
    """Refuse to send what may only be waiting."""
    held = read_backlog(client, url)
    if (held.waiting or held.in_flight) and not force:
        raise QueueUnavailable(
            f"{url} still holds {held.waiting:,} messages and {held.in_flight:,} in flight: some "
            f"of the {number:,} jobs may only be waiting there. Wait until it is drained, or say "
            "--force; jobs that come twice cost time and make one object"
        )


def _queue_of(config: AppConfig, manifest: RunManifest) -> tuple[SQSClient, str]:
    """Return a client, and the queue: the one that was asked for, or else that of the run."""
    url = config.queue.url if config.queue else manifest.queue_url
    client: SQSClient = aws_client("sqs", config.aws)
    return client, url


def _backlog_of(config: AppConfig, manifest: RunManifest) -> Callable[[], Backlog | None]:
    """Return what asks the run's queue for its backlog; a queue that is away has none."""
    client, url = _queue_of(config, manifest)

    def ask() -> Backlog | None:
        with suppress(QueueUnavailable):
            return read_backlog(client, url)
        return None

    return ask


def _error_row(record: Record) -> Iterable[Any]:
    values = record | {"source": source_url(record)}
    return (values.get(name) for name in _ERROR_COLUMNS)


def _missing_row(item: Missing) -> Iterable[Any]:
    entry = item.entry
    return (item.problem, entry.job_id, f"s3://{entry.bucket}/{entry.key}", entry.etag)


def _write_csv(place: str, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with ExitStack() as stack:
        if place == "-":
            file: TextIO = sys.stdout
        else:
            file = stack.enter_context(Path(place).open("w", encoding="utf-8", newline=""))
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


@contextmanager
def _status() -> Iterator[Status]:
    """Show what is done now, on the standard error, where that is a terminal."""
    with Console(stderr=True).status("") as shown:
        yield shown


@contextmanager
def _counting(what: str = "records read") -> Iterator[Callable[[int], None]]:
    """Show how many of something there were so far."""
    total = 0
    with _status() as shown:

        def count(number: int) -> None:
            nonlocal total
            total += number
            shown.update(f"{total:,} {what}")

        yield count
