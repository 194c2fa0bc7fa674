"""The demonstration: images through the queue to cut-outs and a report, on this machine alone."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ingest.cli.demo_cutouts import CutoutFiles
from ingest.cli.demo_folder import MOST_IMAGES, check_fits, prepare_demo_folder
from ingest.cli.exit_codes import FAILED, STALLED, SUCCESS
from ingest.cli.options import Session
from ingest.cli.own_images import own_images
from ingest.cli.progress import describe_run, show_progress
from ingest.cli.settings import with_bundled_model
from ingest.cli.true_masks import score_cutouts
from ingest.local.application import Endpoints, replica_states, serving
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.memory import machine_memory
from ingest.local.photographs import copy_real_photographs, make_photographs
from ingest.local.ports import free_port
from ingest.local.processes import terminate_as_interrupt, wait_for_interrupt
from ingest.messages.build import new_run_id
from ingest.runs.report import RunReport, read_report, source_url
from ingest.runs.report_page import FAILURES_SHOWN, write_report
from ingest.runs.send import plan_run, send_run
from ingest.runs.status import RunMonitor, RunStatus, follow
from ingest.sources.base import Entry
from ingest.sources.folder import plan_uploads, upload_files
from ingest.units import counted, format_duration
from serve_app.config import AppConfig
from serve_app.contracts.job import Output
from serve_app.error_text import visible
from serve_app.models.registry import BUNDLED_MODEL, missing_weights
from serve_app.storage import open_store

BUCKET = "foreedge-demo"
"""Bucket of the images, the results and the ledger."""

_QUEUE = "foreedge-demo"
_UPLOAD_PREFIX = "photographs/"
_STALLED_AFTER_S = 120.0
_SAMPLE_RESULTS = 48
_REAL_EVERY = 4
"""One of so many photographs is a real one, as long as there are any."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of a demonstration."""

    images: Path | None
    """Folder of images. None: photographs are copied and drawn."""
    count: int
    """Number of photographs if ``images`` is None."""
    out: Path
    keep: bool
    """Whether everything keeps running until Ctrl-C."""
    seed: int
    """Seed of the first synthetic photograph."""
    most_images: int = MOST_IMAGES
    """Most images that are taken."""


def choose_models(config: AppConfig, console: Console) -> dict[str, Any]:
    """Return settings of the models for a machine without the weights of the default, or none.

    Args:
        config: Settings of the environment.
        console: Terminal for a line about weights that are not here.
    """
    # What somebody chose is not replaced: the application reports weights that are missing.
    missing = [] if config.chooses_models else missing_weights(config)
    if not missing:
        return {}
    console.print(
        f"The weights of {', '.join(missing)} are not on this machine. {BUNDLED_MODEL} cuts out "
        f"instead, which knows books only. For other images, run 'foreedge models fetch "
        f"{' '.join(missing)}' first.",
        style="yellow",
        highlight=False,
        soft_wrap=True,
    )
    return {"models": [BUNDLED_MODEL]}


def run_demo(options: DemoOptions, console: Console) -> int:
    """Run the demonstration and return the exit code, 1 if an image failed and 3 if it stalled.

    Args:
        options: The options of the command.
        console: The terminal.

    Raises:
        InvalidConfig: There are no images or too many, or the folder of the results holds things of
            others.
        ModelUnavailable: The weights of a model that the environment names are not here.
        DeadlineExceeded: The local SQS and S3, or the application, did not start in time.
    """
    models = with_bundled_model(choose_models(AppConfig.load(), console))
    if options.images is not None:
        # Before the folder of the results is touched: what the user named may be wrong.
        folder = options.images
        files, _ = own_images(folder, options.out)
        check_fits(files, machine_memory(), options.most_images)
        prepare_demo_folder(options.out, options.images)
    else:
        prepare_demo_folder(options.out)
        folder, files = _photographs(options, models, console)
        check_fits(files, machine_memory(), options.most_images)
    use_dummy_credentials()
    with terminate_as_interrupt(), LocalAws() as local:
        local.create_bucket(BUCKET)
        args = {**models, **_settings(local.endpoint_url, local.create_queue(_QUEUE))}
        console.print("Starting Ray and the application …")
        with serving(args, port=free_port(), dashboard=options.keep, quiet=True) as endpoints:
            session = _session(args)
            try:
                report = _process(session, folder, files, options, console)
            except _Stalled as error:
                console.print(f"Stalled: {error}", style="red", highlight=False, soft_wrap=True)
                return STALLED
            with report:
                _write_results(report, session, options.out, console)
                _print_scores(options.out, console)
                end = report.status
            if options.keep:
                _wait(session, endpoints, options.out, files[0], console)
            console.print("Stopping …")
    return FAILED if end.counts["failed"] or end.missing else SUCCESS


def _photographs(
    options: DemoOptions, models: dict[str, Any], console: Console
) -> tuple[Path, list[Path]]:
    """Return a new folder of photographs, copied and drawn."""
    folder, masks = options.out / "photographs", options.out / "masks"
    # The bundled model knows no other subjects than those of the drawn ones.
    real = 0 if AppConfig.load(models).models == (BUNDLED_MODEL,) else options.count // _REAL_EVERY
    copied = copy_real_photographs(folder, real)
    count = options.count - len(copied)
    with Progress(console=console) as progress:
        task = progress.add_task("Drawing photographs", total=count)
        drawn = make_photographs(
            folder,
            count,
            options.seed,
            lambda n: progress.update(task, advance=n),
            masks=masks,
        )
    return folder, copied + drawn


def _settings(endpoint_url: str, queue_url: str) -> dict[str, Any]:
    """Return the settings of the application for a local SQS and S3."""
    return {
        "aws": {"endpoint_url": endpoint_url},
        "storage": {"allowed_buckets": [BUCKET]},
        "queue": {"url": queue_url, "long_poll_s": 2, "visibility_timeout_s": 60},
        "ledger": {"bucket": BUCKET, "part_interval_s": 0.5},
    }


def _session(args: dict[str, Any]) -> Session:
    config = AppConfig.load(args)
    assert config.ledger is not None
    return Session(config, open_store(config), config.ledger)


def _process(
    session: Session, folder: Path, files: list[Path], options: DemoOptions, console: Console
) -> RunReport:
    """Upload the images, put their jobs on the queue and write each cut-out once it is there."""
    run = session.run_folder(new_run_id())
    uploads = plan_uploads(folder, files, BUCKET, _UPLOAD_PREFIX)
    with Progress(console=console) as progress:
        task = progress.add_task("Uploading", total=len(uploads))
        upload_files(session.store, uploads, lambda n: progress.update(task, advance=n))
    plan = plan_run(
        [Entry(item.bucket, item.key) for item in uploads],
        folder=run,
        description=str(folder),
        output=Output(bucket=BUCKET),
        recipe="cutout",
    )
    manifest = send_run(session.queue_client(), plan)
    names = {item.key: item.key.removeprefix(_UPLOAD_PREFIX) for item in uploads}
    results = options.out / "cutouts"
    cutouts = CutoutFiles(session.store, results, names)
    steps = follow(
        RunMonitor(run, manifest, on_record=cutouts.note),
        interval_s=0.5,
        stalled_after_s=_STALLED_AFTER_S,
        on_stalled=_give_up,
    )
    try:
        show_progress(console, cutouts.written(steps), time.monotonic)
    except (KeyboardInterrupt, _Stalled):
        console.print(
            f"{counted(len(cutouts), 'cut-out')} of {len(files):,} are complete, in {results}."
            + ("" if options.images else " The next demonstration with this --out removes them."),
            highlight=False,
            soft_wrap=True,
        )
        raise
    return read_report(run)


class _Stalled(Exception):
    """There are no new results."""


def _give_up(now: RunStatus) -> None:
    raise _Stalled(
        f"there was no new result for {format_duration(_STALLED_AFTER_S)}, and {now.missing} of "
        f"{now.jobs} images remain; {replica_states()}"
    )


def _write_results(report: RunReport, session: Session, out: Path, console: Console) -> None:
    """Write the report to a folder, and print a summary."""
    page = write_report(report, session.store, session.config, out, _SAMPLE_RESULTS)
    console.print()
    console.print(describe_run(report.status))
    for record in report.failures(FAILURES_SHOWN):
        line = f"  {source_url(record)}: {record.get('code')}: {record.get('message')}"
        console.print(visible(line), style="red", markup=False, highlight=False)
    console.print()
    console.print(f"Cut-outs  {out / 'cutouts'}", highlight=False, soft_wrap=True)
    console.print(f"Report    {page}", highlight=False, soft_wrap=True)


def _print_scores(out: Path, console: Console) -> None:
    """Print how well the cut-outs of drawn photographs match their true masks."""
    scores = score_cutouts(out / "cutouts", out / "masks")
    if scores:
        worst = min(scores, key=lambda name: scores[name])
        console.print(
            f"IoU       {fmean(scores.values()):.3f} in the mean with the true masks of the "
            f"{len(scores)} drawn photographs, {scores[worst]:.3f} at least ({worst})",
            highlight=False,
            soft_wrap=True,
        )


def _wait(session: Session, endpoints: Endpoints, out: Path, image: Path, console: Console) -> None:
    """Print how to use the running application, and return after Ctrl-C."""
    environment = out / "env"
    environment.write_text(_environment(session, endpoints))
    usage = _usage(session, endpoints, environment, image)
    console.print(usage, highlight=False, soft_wrap=True)
    try:
        wait_for_interrupt()
    finally:
        environment.unlink()


def _environment(session: Session, endpoints: Endpoints) -> str:
    """Return shell commands that set the variables which other terminals need."""
    aws = session.config.aws
    variables = {
        "FOREEDGE_AWS__ENDPOINT_URL": aws.endpoint_url,
        "FOREEDGE_QUEUE__URL": session.queue_client().url,
        "FOREEDGE_LEDGER__BUCKET": session.ledger.bucket,
        "AWS_ENDPOINT_URL": aws.endpoint_url,
        "AWS_DEFAULT_REGION": aws.region,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "CUTOUT_URL": f"{endpoints.http}/v1/cutout",
    }
    return "".join(
        f"export {name}={shlex.quote(str(value))}\n" for name, value in variables.items() if value
    )


def _usage(session: Session, endpoints: Endpoints, environment: Path, image: Path) -> str:
    """Return how to use the running application from another terminal."""
    return f"""
[bold]Everything keeps running until Ctrl-C.[/bold]

  HTTP       {endpoints.http}/v1/cutout
  Operations {endpoints.http}/ops
  Dashboard  {endpoints.dashboard or "not available"}
  Its token  {endpoints.dashboard_token or "none needed"}
  Queue      {session.queue_client().url}
  S3         {session.config.aws.endpoint_url}

In another terminal:

  source {environment}
  curl --fail -o cutout.png --data-binary @{image} $CUTOUT_URL
  foreedge bulk path/to/images --wait
"""
