"""``foreedge bulk``: put a run on the queue."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from ingest.cli.arguments import RunSource, SourceOptions, check_run_buckets, resolve_source
from ingest.cli.bulk_summary import (
    count_images,
    print_already_sent,
    print_left_out,
    print_run,
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
    home_text,
    open_session,
)
from ingest.cli.progress import SendingProgress, progress_bar
from ingest.cli.terminal import open_terminal, print_json, print_text
from ingest.cli.watch import STALLED_AFTER, watch_run
from ingest.local.processes import terminate_as_interrupt
from ingest.messages.build import new_run_id
from ingest.runs.cancellation import is_cancelled, lift_cancellation
from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList, Sent
from ingest.runs.manifest import RunManifest
from ingest.runs.send import RunPlan, open_manifest, plan_run, recipe_argument, send_run
from ingest.sources.folder import missing_uploads, upload_files
from ingest.sqs.queue_client import QueueClient, check_answers, check_url
from ingest.units import counted, parse_duration
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.storage.protocol import ObjectStore

SourceArgument = Annotated[
    str,
    typer.Argument(
        parser=home_text,
        help="s3://bucket/prefix, a manifest (CSV or JSON lines, also .gz), the manifest.json of "
        "an S3 Inventory (in S3 or a local copy), or a local folder.",
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        help="s3://bucket/prefix for the results. Default: cutouts/ in the bucket of the images."
    ),
]
RecipeOption = Annotated[
    str, typer.Option(help="Preset (cutout, catalog or mask) or JSON object of options.")
]
RunIdOption = Annotated[
    str | None,
    typer.Option(help="Id of the run. Default: a new one. A stopped run is resumed by its id."),
]
UploadToOption = Annotated[
    str | None,
    typer.Option(
        help="s3://bucket/prefix to upload the images of a local folder to. Default: uploads/ in "
        "the bucket of the ledger."
    ),
]
UrlEncodedKeysOption = Annotated[
    bool,
    typer.Option(
        "--url-encoded-keys", help="The keys in the manifest are URL-encoded, as in S3 Batch."
    ),
]
AllNamesOption = Annotated[
    bool,
    typer.Option(
        "--all-names", help="Take names without the extension of an image too, but no folders."
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Watch the run until it ends.")]


def bulk(
    source: SourceArgument,
    output: OutputOption = None,
    recipe: RecipeOption = "cutout",
    run_id: RunIdOption = None,
    upload_to: UploadToOption = None,
    url_encoded_keys: UrlEncodedKeysOption = False,
    all_names: AllNamesOption = False,
    rate: RateOption = None,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Put a run on the queue: one message per image.

    Ctrl-C stops it and prints the command that resumes it. No image is lost or sent twice. A run
    that was cancelled is resumed when it is sent again.
    """
    console = open_terminal(as_json=as_json)
    session = open_session(config, queue, ledger_bucket, endpoint_url)
    # Without a queue, the command fails before it reads the source.
    target = None if dry_run else _queue(session)
    options = SourceOptions(output, upload_to, url_encoded_keys, all_names)
    with console.status("Reading the source …"):
        run, plan = _plan(session, source, options, run_id or new_run_id(), recipe)
    print_run(console, plan, recipe)
    if target is None:
        images = count_images(console, plan)
        console.print("Nothing was sent (dry run).")
        if as_json:
            print_json({"run_id": plan.run_id, "images": images, "sent": False})
        return
    known, before = _resume(console, plan, target)
    if before is not None and before.complete:
        print_already_sent(console, plan.run_id, before, as_json)
        if wait:
            watch_run(plan.folder, known, target, parse_duration(STALLED_AFTER), as_json=as_json)
        return
    again: dict[str, object] = {"--run-id": plan.run_id, "--output": output}
    again |= {"--upload-to": upload_to, "--recipe": recipe, "--rate": rate, "--config": config}
    again |= {"--queue": queue, "--ledger-bucket": ledger_bucket}
    again |= {"--endpoint-url": endpoint_url, "--url-encoded-keys": url_encoded_keys or None}
    again |= {"--all-names": all_names or None, "--wait": wait or None}
    with _saying_how_to_resume(console, plan, source, again):
        if run.uploads and before is None:
            # A run with a new id has no uploads yet.
            _upload(session.store, target, console, run, new_id=None if run_id else plan.run_id)
        manifest = _send(target, console, run, plan, rate)
    console.print(f"Messages sent: {manifest.jobs:,}")
    if before is None:
        print_left_out(console, plan.source)
    if as_json:
        print_json({"run_id": plan.run_id, "images": manifest.jobs, "sent": True})
    if wait:
        watch_run(plan.folder, manifest, target, parse_duration(STALLED_AFTER), as_json=as_json)
    console.print(f"To watch:  foreedge status {manifest.run_id} --watch", highlight=False)


def _queue(session: Session) -> QueueClient:
    """Return the queue, whose name says whether it is of a kind that can be served.

    Raises:
        InvalidConfig: It cannot be served, or it is the catalog's and the command line does not
            name it.
    """
    queue = session.queue_client()
    check_url(queue.url)
    if session.config.catalog is not None and not session.queue_named:
        # Another worker of that queue fails on these messages, and uses up their receives.
        raise InvalidConfig(
            f"the queue of the settings, {queue.url}, is for the catalog's own jobs, so nothing "
            "was sent. Name the queue of the run: --queue URL. It may be the same one if only "
            "Foreedge consumes it"
        )
    return queue


def _resume(console: Console, plan: RunPlan, queue: QueueClient) -> tuple[RunManifest, Sent | None]:
    """Resume a run if it exists, and return its manifest and how many jobs were sent before.

    Its id is printed unless nothing is left to be sent.
    """
    # A run of other images that has this id stays as it is.
    manifest = open_manifest(plan, queue.url)
    print_resumed(console, plan.folder, queue)
    before = JobList(plan.folder).sent()
    if before is None or not before.complete:
        if before is not None:
            console.print(f"Resuming after {counted(before.jobs, 'message')}.")
        console.print(f"Run     {plan.run_id}", highlight=False)
    return manifest, before


def print_resumed(console: Console, folder: RunFolder, queue: QueueClient) -> None:
    """Resume a run if it was cancelled, and say so.

    Raises:
        QueueUnavailable: The queue does not answer, so that nothing can be sent. The run stays
            cancelled.
    """
    if is_cancelled(folder):
        check_answers(queue)
        lift_cancellation(folder)
        console.print(f"Run {folder.run_id} is not cancelled any more.", highlight=False)


def _plan(
    session: Session, source: str, options: SourceOptions, run_id: str, recipe: str
) -> tuple[RunSource, RunPlan]:
    """Return the images that the source names, and the run of them."""
    message_recipe = recipe_argument(recipe)
    run = resolve_source(
        source, options, run_id, session.store, session.ledger, session.config.queue
    )
    check_run_buckets(run, session.config.storage.allowed_buckets)
    plan = plan_run(
        run.source,
        folder=session.run_folder(run_id),
        description=f"{source} (all names)" if options.all_names else source,
        output=run.output,
        recipe=message_recipe,
    )
    return run, plan


def _send(
    queue: QueueClient, console: Console, run: RunSource, plan: RunPlan, rate: float | None
) -> RunManifest:
    """Send the run, while a bar shows the progress."""
    with progress_bar(console) as progress:
        return send_run(queue, plan, SendingProgress(progress, run.source), rate)


def _upload(
    store: ObjectStore, queue: QueueClient, console: Console, run: RunSource, *, new_id: str | None
) -> None:
    """Upload the images of a folder that are not in the store yet, while a bar shows the progress.

    Raises:
        InvalidConfig: Files cannot be read.
        QueueUnavailable: The queue does not answer, so that nothing was uploaded.
        ForeedgeError: The store refuses or does not answer.
    """
    check_answers(queue)
    uploads = run.uploads
    if new_id is not None:
        print_text(
            console,
            "The images are uploaded below the run's id. To send this folder again without "
            f"uploading and processing it again, add --run-id {new_id}",
        )
    else:
        with console.status("Looking for earlier uploads …"):
            uploads = missing_uploads(store, run.uploads, run.upload_prefix)
        if known := len(run.uploads) - len(uploads):
            console.print(f"{counted(known, 'image')} uploaded before.", highlight=False)
    with progress_bar(console) as progress:
        task = progress.add_task("Uploading", total=len(uploads), detail="")
        upload_files(store, uploads, lambda n: progress.update(task, advance=n))


@contextmanager
def _saying_how_to_resume(
    console: Console, plan: RunPlan, source: str, options: dict[str, object]
) -> Iterator[None]:
    """Print the command that resumes the run if it is interrupted or fails and can be resumed.

    Args:
        console: The terminal.
        plan: The run.
        source: The source argument of the command.
        options: Values of the options by name. None is left out, and True stands for a flag.
    """
    words = ["foreedge", "bulk", source]
    for name, value in options.items():
        if value is not None:
            words += [name] if value is True else [name, str(value)]
    try:
        with terminate_as_interrupt():
            yield
    except KeyboardInterrupt:
        sent = JobList(plan.folder).sent()
        messages = counted(sent.jobs if sent else 0, "message")
        console.print(f"Stopped after {messages}. Nothing is lost.")
        print_text(console, f"To resume:  {shlex.join(words)}")
        raise typer.Exit(INTERRUPTED) from None
    except ForeedgeError as error:
        # What is wrong with the source of a run that is being sent stays wrong for this run. Files
        # of an upload, before that, can be made readable.
        if not isinstance(error, InvalidConfig) or JobList(plan.folder).sent() is None:
            print_text(console, f"To resume:  {shlex.join(words)}")
        raise
