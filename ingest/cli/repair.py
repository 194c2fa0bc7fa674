"""The commands that repair a run: ``foreedge redrive`` and ``verify``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console

from ingest.cli.bulk import print_resumed
from ingest.cli.exit_codes import FAILED
from ingest.cli.options import (
    CodeOption,
    ConfigOption,
    CsvOption,
    EndpointOption,
    JsonOption,
    LedgerOption,
    QueueOption,
    RateOption,
    RawOption,
    RunArgument,
    Session,
    open_session,
)
from ingest.cli.terminal import (
    open_terminal,
    print_json,
    print_text,
    running_count,
    status_line,
    write_csv,
)
from ingest.messages.build import INVALID_RUN, message_body
from ingest.runs.folder import RunFolder
from ingest.runs.live import is_live
from ingest.runs.manifest import RunManifest, manifest_of, read_manifest
from ingest.runs.redrive import (
    Redriven,
    RedriveOptions,
    clear_dead_letters,
    redrive_failures,
    redriven_jobs,
)
from ingest.runs.send import recipe_argument
from ingest.runs.verify import IncompleteJob, Verification, VerificationResult
from ingest.sqs.backlog import read_backlog
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.sender import send_messages
from ingest.units import counted
from serve_app.errors import InvalidConfig, QueueUnavailable, SourceNotFound

_SHOWN_MISSING = 20
_CANNOT_SEND = (
    "these jobs cannot be sent again from here. The ledger has neither their recipes nor their "
    "outputs, because foreedge bulk did not send them. SQS sends dead letters again: aws sqs "
    "start-message-move-task --source-arn ARN_OF_THE_DEAD_LETTER_QUEUE --destination-arn "
    "ARN_OF_THE_QUEUE. It needs the destination, since SQS knows where a message belongs only if "
    "it has moved it there itself, and the consumer moves most of them. Jobs of a book "
    "collection: foreedge catalog sweep --failed. Other jobs: send them as their producer did"
)
_COLUMNS = ("problem", "job_id", "source", "etag")

AsTheyAreNowOption = Annotated[
    bool,
    typer.Option(
        "--as-they-are-now",
        help="Accept images that have changed since the run was sent (code source_changed).",
    ),
]
OtherRecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", help="Recipe to use instead of the run's: a preset or a JSON object."),
]
ClearDeadLettersOption = Annotated[
    bool,
    typer.Option("--clear-dead-letters", help="Then delete these jobs from the dead-letter queue."),
]
EnqueueMissingOption = Annotated[
    bool, typer.Option("--enqueue-missing", help="Put the missing jobs on the queue again.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Do so even if the queue still holds messages.")
]


def redrive(
    run: RunArgument,
    code: CodeOption = None,
    as_they_are_now: AsTheyAreNowOption = False,
    recipe: OtherRecipeOption = None,
    clear: ClearDeadLettersOption = False,
    rate: RateOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Put the failed jobs of a run on the queue again.

    It is safe to repeat: a job that was redriven and has no new result is not sent again.
    """
    session = open_session(config, queue, ledger_bucket, endpoint_url)
    folder = session.run_folder(run)
    manifest = _manifest_to_send(folder)
    options = RedriveOptions(
        code, as_they_are_now, None if recipe is None else recipe_argument(recipe)
    )
    console = open_terminal(as_json=as_json)
    target = _queue(session, manifest, console)
    print_resumed(console, folder, target)
    with running_count("messages sent") as on_sent:
        redriven = redrive_failures(target, folder, manifest, options, rate=rate, on_sent=on_sent)
    _print_redriven(console, manifest.run_id, redriven)
    cleared = None
    if clear:
        # With those of earlier redrives, so that an interrupted search can be repeated, also once
        # the jobs have ended.
        job_ids = redriven.job_ids | redriven_jobs(folder)
        cleared = 0
        if job_ids:
            cleared = clear_dead_letters(
                target, job_ids, lambda others: _print_incomplete(console, others)
            )
        console.print(f"Deleted {cleared:,} dead letters of these jobs.")
    if as_json:
        print_json(
            {
                "run_id": manifest.run_id,
                "redriven": len(redriven.job_ids),
                "waiting": redriven.waiting,
                "unreadable": redriven.unreadable,
                "dead_letters_deleted": cleared,
            }
        )
    if redriven.job_ids:
        # Only a queue that differs from the run's own has to be named once more.
        other = f" --queue {target.url}" * (target.url != manifest.queue_url)
        print_text(console, f"To watch:  foreedge status {manifest.run_id} --watch{other}")


def _queue(session: Session, manifest: RunManifest, console: Console) -> QueueClient:
    """Return the queue to send to, and name it if the settings name another one."""
    target, configured = session.queue_client(manifest), session.config.queue
    if configured is not None and configured.url != target.url:
        # It may be one that nobody serves any more.
        print_text(
            console,
            f"Queue   {target.url}, to which the run was sent. The settings name "
            f"{configured.url}. To use another one: --queue URL",
        )
    return target


def _manifest_to_send(folder: RunFolder) -> RunManifest:
    """Return the manifest of a run whose jobs can be sent again.

    Raises:
        InvalidConfig: The ledger has results of this name, and not what was sent.
        SourceNotFound: The ledger has nothing of this name.
    """
    if is_live(folder.run_id) or folder.run_id == INVALID_RUN:
        raise InvalidConfig(f"{folder.run_id}: {_CANNOT_SEND}")
    try:
        return read_manifest(folder)
    except SourceNotFound as error:
        if next(folder.part_keys("results"), None) is None:
            raise
        raise InvalidConfig(f"{folder.run_id}: {_CANNOT_SEND}") from error


def _print_incomplete(console: Console, others: int) -> None:
    console.print(
        f"[yellow]{others:,} dead letters of other jobs were looked at, and there are more."
        "[/yellow] Some dead letters of these jobs may be left. Repeat the command.",
        highlight=False,
    )


def _print_redriven(console: Console, run_id: str, redriven: Redriven) -> None:
    console.print(f"Failed jobs sent again: {len(redriven.job_ids):,}")
    if redriven.waiting:
        console.print(
            f"  {redriven.waiting:,} more were redriven before and have no new result yet. If they "
            f"were lost:  foreedge verify {run_id}",
            highlight=False,
        )
    if redriven.unreadable:
        console.print(
            f"  {redriven.unreadable:,} were left out, because their records name no image."
        )


def verify(
    run: RunArgument,
    to_csv: CsvOption = None,
    raw: RawOption = False,
    enqueue_missing: EnqueueMissingOption = False,
    force: ForceOption = False,
    rate: RateOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Check that every job of a run has an outcome and a result.

    Each job must have exactly one outcome, and the object that it names must exist.
    """
    session = open_session(config, queue, ledger_bucket, endpoint_url)
    folder = session.run_folder(run)
    manifest = manifest_of(folder)
    # The list of missing jobs may go to the standard output.
    console = open_terminal(as_json=as_json or to_csv == "-")
    with Verification(folder, manifest) as verification:
        with status_line() as line:
            found = verification.run(line.update)
        if manifest is None and not found.jobs:
            raise SourceNotFound(f"no results of {folder.run_id} are recorded in this ledger")
        console.print(_describe_verified(folder.run_id, found), highlight=False)
        number = found.without_outcome + found.without_object
        if to_csv is not None:
            write_csv(to_csv, _COLUMNS, map(_missing_row, verification.incomplete_jobs()), raw=raw)
        elif number:
            _print_missing(console, verification.incomplete_jobs())
        if as_json and to_csv != "-":
            print_json({"run_id": folder.run_id, "sound": found.sound, **asdict(found)})
        if number and not enqueue_missing:
            console.print("To put them on the queue again: --enqueue-missing", highlight=False)
        elif number:
            if manifest is None:
                raise InvalidConfig(f"{folder.run_id}: {_CANNOT_SEND}")
            target = _queue(session, manifest, console)
            _check_drained(target, number, force)
            print_resumed(console, folder, target)
            sent = _send_again(target, manifest, verification.incomplete_jobs(), rate)
            console.print(f"Jobs sent again: {sent:,}")
    if not found.sound:
        raise typer.Exit(FAILED)


def _describe_verified(run_id: str, found: VerificationResult) -> str:
    lines = [
        f"Jobs with exactly one outcome: [bold]{found.ended:,}[/bold] of {found.jobs:,}. "
        f"Objects looked up: {found.objects:,}."
    ]
    if not found.has_list:
        lines = [
            f"[yellow]Run {run_id} has no list of its jobs, because it was not sent by foreedge "
            f"bulk.[/yellow]",
            f"  Jobs with an outcome: {found.ended:,}. Objects looked up: {found.objects:,}.",
        ]
    resume = f"To resume it, repeat what sent it, with --run-id {run_id}"
    if found.without_outcome:
        unknown = "" if found.has_list else ". Nobody knows which: their producer has to send them"
        lines.append(f"  [red]Jobs without an outcome: {found.without_outcome:,}[/red]{unknown}")
    if found.unsent:
        lines.append(f"    Not sent yet: {found.unsent:,}. {resume}")
    if found.without_object:
        lines.append(f"  [red]Jobs without their object: {found.without_object:,}[/red]")
    if not found.listed:
        lines.append(
            "  [red]The list of jobs is not complete[/red], because the run is still being sent "
            f"or was stopped. {resume}"
        )
    if found.failed:
        lines.append(f"  Failures: {found.failed:,}. See foreedge errors {run_id}")
    if found.duplicates:
        lines.append(
            f"  Further records, from repeated deliveries and redrives: {found.duplicates:,}"
        )
    if found.unlisted:
        lines.append(f"  Outcomes of jobs that are not in the list: {found.unlisted:,}")
    if found.sound:
        lines.append("[green]Nothing is missing.[/green]")
    return "\n".join(lines)


def _print_missing(console: Console, missing: Iterator[IncompleteJob]) -> None:
    for item in itertools.islice(missing, _SHOWN_MISSING):
        print_text(console, f"  {item.problem}  s3://{item.entry.bucket}/{item.entry.key}")
    if more := sum(1 for _ in missing):
        console.print(f"  … and {more:,} more. To list all: --csv FILE")


def _check_drained(target: QueueClient, number: int, force: bool) -> None:
    """Refuse to send jobs again that may only be waiting on the queue."""
    held = read_backlog(target)
    if (held.waiting or held.in_flight) and not force:
        raise QueueUnavailable(
            f"{target.url} still holds {counted(held.waiting, 'message')}, and {held.in_flight:,} "
            f"more in flight. Some of the {counted(number, 'job')} may only be waiting there. Wait "
            "until the queue is empty, or use --force: a job that is sent twice costs time but "
            "makes one object"
        )


def _send_again(
    target: QueueClient, manifest: RunManifest, missing: Iterable[IncompleteJob], rate: float | None
) -> int:
    """Send jobs again, and return their number."""
    total = 0
    output, recipe = manifest.output.model_dump(), manifest.recipe.stored()
    bodies = (message_body(manifest.run_id, output, recipe, item.entry) for item in missing)
    with running_count("messages sent") as on_sent:

        def count(messages: int) -> None:
            nonlocal total
            total += messages
            on_sent(messages)

        send_messages(target, bodies, count, rate=rate)
    return total


def _missing_row(item: IncompleteJob) -> Iterable[Any]:
    entry = item.entry
    return (item.problem, entry.job_id, f"s3://{entry.bucket}/{entry.key}", entry.etag)
