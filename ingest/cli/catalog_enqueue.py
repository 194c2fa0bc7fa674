"""``foreedge catalog enqueue``: queue a job for every book without a cut-out."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from ingest.cli.catalog_database import (
    BooksOption,
    open_database,
    parse_books,
    require_catalog,
)
from ingest.cli.exit_codes import INTERRUPTED
from ingest.cli.options import (
    ConfigOption,
    EndpointOption,
    JsonOption,
    LedgerOption,
    QueueOption,
    RateOption,
    Session,
    SetOption,
    open_session,
)
from ingest.cli.progress import SendingProgress, progress_bar
from ingest.cli.terminal import open_terminal, print_json, running_count
from ingest.local.processes import terminate_as_interrupt
from ingest.messages.build import new_run_id
from ingest.runs.job_list import JobList
from ingest.runs.send import RunPlan, SendEntries, refuse_reserved, send_run
from ingest.units import counted
from serve_app.contracts.job import Output
from serve_app.error_text import visible

_SHOWN_BOOKS = 3
_RECIPE = "catalog"

StatusOption = Annotated[
    str | None, typer.Option("--status", help="Only the books with this status, e.g. ON_HAND.")
]
AlsoFailedOption = Annotated[
    bool, typer.Option("--failed", help="Queue the books too whose job has failed.")
]
MostBooksOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Most books of the run.")
]
EnqueueRunOption = Annotated[
    str | None,
    typer.Option(help="Id of the run. Default: a new one. A stopped run is resumed by its id."),
]
DryEnqueueOption = Annotated[
    bool, typer.Option("--dry-run", help="Count the books, and queue none.")
]


def enqueue_books(
    books: BooksOption = None,
    status: StatusOption = None,
    failed: AlsoFailedOption = False,
    limit: MostBooksOption = None,
    run_id: EnqueueRunOption = None,
    rate: RateOption = None,
    dry_run: DryEnqueueOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    settings: SetOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Queue a job for every book that has images and no cut-out, as one run.

    Books with a job that waits, runs or has failed are left out. Ctrl-C stops the run, and its id
    resumes it. No book gets two jobs of one run.
    """
    console = open_terminal(as_json=as_json)
    session = open_session(config, queue, ledger_bucket, endpoint_url, settings)
    bucket, ids = require_catalog(session.config).images_bucket, parse_books(books)
    run = run_id or new_run_id()
    refuse_reserved(run)
    options = {"books": books, "status": status, "failed": failed or None, "limit": limit}
    chosen = [f"{name} {value}" for name, value in options.items() if value is not None]
    with open_database(session.config) as database:
        # The packages of the catalog are in an extra.
        from ingest.catalog.enqueue import RowSender, UnprocessedBooks
        from ingest.catalog.selection import BookChoice
        from ingest.catalog.tables import check_tables

        # A column that rows lack would be found after the run was listed.
        database.run(check_tables)
        choice = BookChoice(ids, status, failed)
        plan = RunPlan(
            session.run_folder(run),
            f"unprocessed books of the catalog ({', '.join(chosen) or 'all'})",
            UnprocessedBooks(database, bucket, run, choice),
            Output(bucket=bucket, prefix="books/"),
            _RECIPE,
            limit=limit,
            command="catalog enqueue",
        )
        if dry_run:
            _count_books(console, plan, as_json)
        else:
            _send_books(session, console, plan, RowSender(database, plan, rate), as_json)


def _count_books(console: Console, plan: RunPlan, as_json: bool) -> None:
    number = 0
    with running_count("books found") as on_found:
        for entry in plan.entries():
            number += 1
            on_found(1)
            if number <= _SHOWN_BOOKS:
                text = f"  book {entry.book_id}: s3://{entry.bucket}/{entry.key}"
                console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
    console.print(f"{counted(number, 'book')} without a cut-out. Nothing was queued (dry run).")
    if as_json:
        print_json({"run_id": None, "books": number, "sent": False})


def _send_books(
    session: Session, console: Console, plan: RunPlan, sender: SendEntries, as_json: bool
) -> None:
    before = JobList(plan.folder).sent()
    if before is None and next(plan.entries(), None) is None:
        console.print("No book is without a cut-out. Nothing was queued.")
        if as_json:
            print_json({"run_id": None, "books": 0, "sent": False})
        return
    console.print(f"Run     {plan.run_id}", highlight=False)
    if before is not None:
        console.print(f"Resuming after {counted(before.jobs, 'job')} sent before.")
    try:
        with terminate_as_interrupt(), progress_bar(console) as progress:
            shown = SendingProgress(progress, plan.source)
            manifest = send_run(session.queue_client(), plan, shown, send=sender)
    except KeyboardInterrupt:
        console.print(
            "Stopped. Nothing is lost. To resume it, repeat the command with "
            f"--run-id {plan.run_id}",
            highlight=False,
        )
        raise typer.Exit(INTERRUPTED) from None
    sent = before is None or not before.complete
    console.print(f"Books queued: {manifest.jobs:,}" if sent else "The run was queued before.")
    if as_json:
        print_json({"run_id": plan.run_id, "books": manifest.jobs, "sent": sent})
    console.print(f"To watch:  foreedge status {plan.run_id} --watch", highlight=False)
