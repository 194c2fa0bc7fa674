"""``foreedge demo``: the whole way, from photographs to a report, on this machine alone."""

from __future__ import annotations

import io
import multiprocessing
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import Progress

from ingest.local.application import Endpoints, replica_states, serving
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.ports import free_port
from ingest.local.processes import terminate_as_interrupt, wait_for_interrupt
from ingest.runs import send as bulk
from ingest.runs.report import Report, read_report, source_url
from ingest.runs.report_page import FAILURES_SHOWN, write_report
from ingest.runs.status import Standing, Tally, describe, follow, show
from ingest.sources import base as sources
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts import Output
from serve_app.errors import DeadlineExceeded, InvalidConfig
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore

BUCKET = "foreedge-demo"
"""Holds the photographs, the results and the ledger."""

_QUEUE = "foreedge-demo"
_WIDTH, _HEIGHT = 1600, 1200
_JPEG_QUALITY = 92
_OBJECT_EVERY = 6
_PROCESSES = 2
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


def make_photographs(
    folder: Path,
    count: int,
    seed: int,
    on_made: Callable[[int], None] = lambda _: None,
    *,
    sizes: Sequence[tuple[int, int]] = ((_WIDTH, _HEIGHT),),
    keep: bool = False,
) -> list[Path]:
    """Draw photographs and write them as JPEG files; the same seed makes the same ones.

    Args:
        folder: Where they go; made if it does not exist.
        count: How many.
        seed: Of the first; the others follow.
        on_made: Called with 1 after each one that was drawn.
        sizes: Widths and heights in pixels, in turn.
        keep: Whether files that are there are not drawn again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ["object" if i % _OBJECT_EVERY == _OBJECT_EVERY - 1 else "book" for i in range(count)]
    paths = [folder / f"{kind}-{seed + i:05d}.jpg" for i, kind in enumerate(kinds)]
    wanted = [i for i, path in enumerate(paths) if not (keep and path.is_file())]
    if not wanted:
        return paths
    # Spawned, not forked: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
        drawn = pool.map(
            _make_photograph,
            [seed + i for i in wanted],
            [kinds[i] for i in wanted],
            [sizes[i % len(sizes)] for i in wanted],
            [paths[i] for i in wanted],
        )
        for _ in drawn:
            on_made(1)
    return paths


def _make_photograph(seed: int, kind: Any, size: tuple[int, int], path: Path) -> None:
    from serve_app.models.bundled.synthetic import photograph

    image = photograph(seed, width=size[0], height=size[1], kind=kind).image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    # Whole or not at all: a file that is there is kept the next time.
    temporary = path.with_suffix(".drawing")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


def _photographs(options: DemoOptions, console: Console) -> tuple[Path, list[Path]]:
    """Return the folder and its photographs; draws them where none are given."""
    if options.images is not None:
        if not options.images.is_dir():
            raise InvalidConfig(f"{options.images} is not a folder")
        files, skipped = sources.in_folder(options.images)
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
    run_id = bulk.new_run_id()
    uploads = sources.uploads(folder, files, BUCKET, "photographs/")
    with Progress(console=console) as progress:
        task = progress.add_task("Uploading", total=len(uploads))
        sources.upload(store, uploads, lambda n: progress.update(task, advance=n))
    plan = bulk.plan(
        [sources.Entry(item.bucket, item.key) for item in uploads],
        run_id=run_id,
        description=str(folder),
        output=Output(bucket=BUCKET),
        recipe="cutout",
    )
    manifest = bulk.send(aws_client("sqs", config.aws), queue.url, store, ledger, plan)
    steps = follow(
        Tally(store, ledger, manifest),
        interval_s=0.5,
        stalled_after_s=_STALLED_AFTER_S,
        on_stalled=_give_up,
    )
    show(console, steps, time.monotonic)
    return read_report(store, ledger, run_id)


def _give_up(now: Standing) -> None:
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
    console.print(describe(report.standing))
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
