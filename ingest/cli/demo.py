"""``foreedge demo``: the whole way, from photographs to a report, on this machine alone."""

from __future__ import annotations

import shlex
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ingest.cli.progress import describe_run, show_progress
from ingest.local.application import Endpoints, replica_states, serving
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.photographs import make_photographs
from ingest.local.ports import free_port
from ingest.local.processes import terminate_as_interrupt, wait_for_interrupt
from ingest.messages.build import new_run_id
from ingest.runs import send as bulk
from ingest.runs.folder import RunFolder
from ingest.runs.report import Report, read_report, source_url
from ingest.runs.report_page import FAILURES_SHOWN, write_report
from ingest.runs.status import RunMonitor, RunStatus, follow
from ingest.sources import base as sources
from ingest.sources.folder import image_files, plan_uploads, upload_files
from ingest.sqs.queue_client import QueueClient
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.job import Output
from serve_app.errors import DeadlineExceeded, InvalidConfig
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore

BUCKET = "foreedge-demo"
"""Holds the photographs, the results and the ledger."""

_QUEUE = "foreedge-demo"
_STALLED_AFTER_S = 120.0
_DOWNLOAD_THREADS = 8
_PICTURES = 48


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a demonstration is made of."""

    images: Path | None
    """Folder of photographs; None makes some."""
    count: int
    out: Path
    keep: bool
    seed: int


def run(options: DemoOptions, console: Console) -> int:
    """Run the demonstration; return the exit code: 1 where an image failed.

    Args:
        options: What it is made of.
        console: Where it tells what it does.

    Raises:
        InvalidConfig: There are no images.
        DeadlineExceeded: Nothing went on for two minutes.
    """
    _clear(options.out)
    folder, files = _photographs(options, console)
    use_dummy_credentials()
    with terminate_as_interrupt(), LocalAws() as local:
        local.create_bucket(BUCKET)
        args = settings(local.endpoint_url, local.create_queue(_QUEUE))
        console.print("Starting Ray and the application …")
        port = free_port()
        with serving(args, port=port, dashboard=options.keep, quiet=True) as endpoints:
            config = AppConfig.load(args)
            with _run(config, folder, files, console) as report:
                _finish(report, config, options.out, console)
                now = report.standing
            if options.keep:
                environment = options.out / "env"
                environment.write_text(_environment(endpoints, config))
                usage = _usage(endpoints, config, environment, files[0])
                console.print(usage, highlight=False, soft_wrap=True)
                try:
                    wait_for_interrupt()
                finally:
                    environment.unlink()
            console.print("Stopping …")
    return 1 if now.counts["failed"] or now.missing else 0


def settings(endpoint_url: str, queue_url: str) -> dict[str, Any]:
    """Return the application's settings for a local server."""
    return {
        "aws": {"endpoint_url": endpoint_url},
        "storage": {"allowed_buckets": [BUCKET]},
        "queue": {"url": queue_url, "long_poll_s": 2, "visibility_timeout_s": 60},
        "ledger": {"bucket": BUCKET, "part_interval_s": 0.5},
    }


def _photographs(options: DemoOptions, console: Console) -> tuple[Path, list[Path]]:
    """Return the folder and its photographs; draws them where none are given."""
    if options.images is not None:
        if not options.images.is_dir():
            raise InvalidConfig(f"{options.images} is not a folder")
        files, skipped = image_files(options.images)
        if not files:
            raise InvalidConfig(f"{options.images} holds no images; {skipped} other files")
        return options.images, files
    folder = options.out / "photographs"
    with Progress(console=console) as progress:
        task = progress.add_task("Photographing", total=options.count)
        files = make_photographs(
            folder, options.count, options.seed, lambda n: progress.update(task, advance=n)
        )
    return folder, files


def _run(config: AppConfig, folder: Path, files: list[Path], console: Console) -> Report:
    """Upload the photographs, put their jobs on the queue, and wait for the results."""
    ledger, queue = config.ledger, config.queue
    if ledger is None or queue is None:
        raise InvalidConfig("the demonstration needs a queue and a ledger")
    store = open_store(config)
    run = RunFolder(store, ledger, new_run_id())
    moved = plan_uploads(folder, files, BUCKET, "photographs/")
    with Progress(console=console) as progress:
        task = progress.add_task("Uploading", total=len(moved))
        upload_files(store, moved, lambda n: progress.update(task, advance=n))
    plan = bulk.plan_run(
        [sources.Entry(item.bucket, item.key) for item in moved],
        folder=run,
        description=str(folder),
        output=Output(bucket=BUCKET),
        recipe="cutout",
    )
    manifest = bulk.send_run(QueueClient(aws_client("sqs", config.aws), queue.url), plan)
    steps = follow(
        RunMonitor(run, manifest),
        interval_s=0.5,
        stalled_after_s=_STALLED_AFTER_S,
        on_stalled=_give_up,
    )
    show_progress(console, steps, time.monotonic)
    return read_report(run)


def _give_up(now: RunStatus) -> None:
    raise DeadlineExceeded(
        f"no result for {_STALLED_AFTER_S:.0f} s, {now.missing} of {now.jobs} images remain; "
        f"{replica_states()}"
    )


def _finish(report: Report, config: AppConfig, out: Path, console: Console) -> None:
    """Write the cut-outs and the report, and tell how it went."""
    store = open_store(config)
    download(report, store, out / "cutouts")
    page = write_report(report, store, config, out, _PICTURES)
    console.print()
    console.print(describe_run(report.standing))
    for record in report.failures(FAILURES_SHOWN):
        line = f"  {source_url(record)}: {record.get('code')}: {record.get('message')}"
        console.print(line, style="red", markup=False, highlight=False)
    console.print()
    console.print(f"Cut-outs  {out / 'cutouts'}", highlight=False, soft_wrap=True)
    console.print(f"Report    {page}", highlight=False, soft_wrap=True)


def download(report: Report, store: ObjectStore, folder: Path) -> None:
    """Write the results of a run into a folder, under the names of their photographs."""

    def one(place: tuple[str, str, str]) -> None:
        bucket, key, name = place
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(bucket, key))

    places = []
    for record in report.jobs():
        if key := record.get("output_key"):
            source = PurePosixPath(record["source"]["key"].removeprefix("photographs/"))
            name = source.with_suffix(PurePosixPath(key).suffix)
            places.append((record["output_bucket"], key, str(name)))
    with ThreadPoolExecutor(_DOWNLOAD_THREADS, "download") as pool:
        list(pool.map(one, places))


def _clear(out: Path) -> None:
    """Remove what an earlier demonstration left; never a folder that is not one's own."""
    if (out / "report.json").is_file():
        for name in ("cutouts", "photographs"):
            shutil.rmtree(out / name, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


def _environment(endpoints: Endpoints, config: AppConfig) -> str:
    """Return what a shell needs to know to reach the running demonstration."""
    variables = {
        "FOREEDGE_AWS__ENDPOINT_URL": config.aws.endpoint_url,
        "FOREEDGE_QUEUE__URL": config.queue.url if config.queue else None,
        "FOREEDGE_LEDGER__BUCKET": config.ledger.bucket if config.ledger else None,
        "AWS_ENDPOINT_URL": config.aws.endpoint_url,
        "AWS_DEFAULT_REGION": config.aws.region,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "CUTOUT_URL": f"{endpoints.http}/v1/cutout",
    }
    return "".join(f"export {name}={shlex.quote(str(v))}\n" for name, v in variables.items() if v)


def _usage(endpoints: Endpoints, config: AppConfig, environment: Path, photograph: Path) -> str:
    """Return how the running demonstration is used from another terminal."""
    return f"""
[bold]It keeps running; Ctrl-C ends it.[/bold]

  HTTP       {endpoints.http}/v1/cutout
  Dashboard  {endpoints.dashboard or "not available"}
  Queue      {config.queue.url if config.queue else ""}
  S3         {config.aws.endpoint_url}

In another terminal:

  source {environment}
  curl --fail -o cutout.png --data-binary @{photograph} $CUTOUT_URL
  foreedge bulk path/to/photographs --wait
"""
