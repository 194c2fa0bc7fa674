"""The commands that repair a run: redrive and verify."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ingest.cli.options import (
    CodeOption,
    ConfigOption,
    CsvOption,
    EndpointOption,
    LedgerOption,
    QueueOption,
    RateOption,
    RunArgument,
    ledger_of,
    queue_of,
)
from ingest.cli.settings import load_config
from ingest.cli.terminal import counting, status, write_csv
from ingest.messages.build import message_body
from ingest.runs import redrive as redriving
from ingest.runs.folder import RunFolder
from ingest.runs.manifest import RunManifest, read_manifest
from ingest.runs.send import recipe_argument
from ingest.runs.verify import Missing, Verification, Verified
from ingest.sqs.backlog import read_backlog
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.sender import send_messages
from serve_app.errors import QueueUnavailable
from serve_app.storage import open_store

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

app = typer.Typer()

_SHOWN = 20
_COLUMNS = ("problem", "job_id", "source", "etag")


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
    recipe: Annotated[
        str | None,
        typer.Option(help="Another recipe than the run's: a preset, or a JSON object."),
    ] = None,
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
    app_config = load_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = ledger_of(app_config), open_store(app_config)
    folder = RunFolder(store, ledger, run)
    manifest = read_manifest(folder)
    recipe_value = recipe_argument(recipe) if recipe is not None else None
    client, url = queue_of(app_config, manifest)
    console = Console()
    with counting("messages sent") as on_sent:
        done = redriving.redrive_failures(
            QueueClient(client, url),
            folder,
            manifest,
            redriving.RedriveOptions(code, as_they_are_now, recipe_value),
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
        number = redriving.clear_dead_letters(QueueClient(client, url), done.job_ids)
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
    app_config = load_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = ledger_of(app_config), open_store(app_config)
    folder = RunFolder(store, ledger, run)
    manifest = read_manifest(folder)
    # The list of what is missing may go to the standard output.
    console = Console(stderr=to_csv == "-")
    with Verification(folder, manifest) as verification:
        with status() as status_line:
            found = verification.run(status_line.update)
        console.print(_describe_verified(manifest, found), highlight=False)
        number = found.without_outcome + found.without_object
        if to_csv is not None:
            write_csv(to_csv, _COLUMNS, map(_missing_row, verification.missing()))
        elif number:
            for _, item in zip(range(_SHOWN), verification.missing(), strict=False):
                line = f"  {item.problem}  s3://{item.entry.bucket}/{item.entry.key}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            if number > _SHOWN:
                console.print(f"  … and {number - _SHOWN:,} more; all of them: --csv FILE")
        if number and not enqueue_missing:
            console.print("To put them on the queue again: --enqueue-missing", highlight=False)
        if enqueue_missing and number:
            client, url = queue_of(app_config, manifest)
            _check_drained(client, url, number, force)
            output, recipe = manifest.output.model_dump(), manifest.recipe.model_dump(mode="json")
            bodies = (
                message_body(run, output, recipe, item.entry) for item in verification.missing()
            )
            with counting("messages sent") as on_sent:
                send_messages(QueueClient(client, url), bodies, on_sent, rate=rate)
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
    if found.unsent:
        lines.append(
            f"    {found.unsent:,} of them were not sent yet: foreedge bulk with the same --run-id "
            "goes on"
        )
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
        lines.append(f"  {found.duplicates:,} records more: deliveries that came again, redrives")
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


def _missing_row(item: Missing) -> Iterable[Any]:
    entry = item.entry
    return (item.problem, entry.job_id, f"s3://{entry.bucket}/{entry.key}", entry.etag)
