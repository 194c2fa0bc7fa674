"""The ``foreedge`` command.

Exit codes: 0 all done; 1 some images failed, something of a run is missing, or a service did not
answer; 2 usage or configuration; 130 interrupted by Ctrl-C (``bulk`` says how to go on).
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ingest.cli import repair as repair_commands
from ingest.cli import runs as run_commands
from ingest.cli.arguments import SourceOptions, resolve_source
from ingest.cli.options import (
    ConfigOption,
    EndpointOption,
    LedgerOption,
    QueueOption,
    RateOption,
    ledger_of,
)
from ingest.cli.plan_plot import plot_plan
from ingest.cli.plan_tables import plan_as_json, print_plan
from ingest.cli.settings import load_config, merge_settings
from ingest.local.processes import terminate_as_interrupt
from ingest.messages.build import new_run_id
from ingest.runs import send as bulk_run
from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList
from ingest.runs.status import Rate, RunMonitor
from ingest.scaling.capacity_plan import PlanRequest, compare_families, make_plan
from ingest.scaling.plan_inputs import find_instance, read_prices, read_profile
from ingest.sources import base as sources
from ingest.sources.folder import upload_files
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.sender import SEND_THREADS
from ingest.units import format_duration, parse_count, parse_duration
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.http.api_keys import read_api_keys
from serve_app.storage import open_store

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Removes the backgrounds of very many photographs.",
)
app.add_typer(run_commands.app)
app.add_typer(repair_commands.app)

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}

SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, as in segmenter.threads=4.")
]


def main() -> None:
    """Run the command line."""
    try:
        app()
    except ForeedgeError as error:
        message = " ".join(error.message.split())
        print(f"error: {error.code}: {message}", file=sys.stderr)
        sys.exit(1 if error.retry == "transient" else 2)


@app.command()
def bulk(
    source: Annotated[
        str,
        typer.Argument(
            help="s3://bucket/prefix, a CSV or JSONL manifest (also .gz), an S3 Inventory's "
            "manifest.json (in S3 or here), or a folder."
        ),
    ],
    output: Annotated[str | None, typer.Option(help="s3://bucket/prefix of the results.")] = None,
    recipe: Annotated[
        str, typer.Option(help="A preset (cutout, catalog, mask), or a JSON object.")
    ] = "cutout",
    run_id: Annotated[
        str | None,
        typer.Option(help="Name of the run; a new one if left out. One that was stopped goes on."),
    ] = None,
    upload_to: Annotated[
        str | None,
        typer.Option(help="For a folder: s3://bucket/prefix of the photographs."),
    ] = None,
    url_encoded_keys: Annotated[
        bool, typer.Option(help="The manifest's keys are URL-encoded, as in S3 Batch Operations.")
    ] = False,
    rate: RateOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch the run to its end.")] = False,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Put a run on the queue: one message for each photograph.

    Ctrl-C stops it and says how to go on; nothing is lost, and nothing is sent twice.
    """
    console = Console()
    app_config = load_config(config, queue, ledger_bucket, endpoint_url)
    ledger = ledger_of(app_config)
    if app_config.queue is None and not dry_run:
        raise InvalidConfig("which queue? Give --queue or FOREEDGE_QUEUE__URL")
    store = open_store(app_config)
    recipe_value = bulk_run.recipe_argument(recipe)
    run = run_id or new_run_id()
    folder = RunFolder(store, ledger, run)
    places = SourceOptions(output, upload_to, url_encoded_keys)
    with console.status("Reading the source …"):
        found = resolve_source(source, places, run, store, ledger, app_config.queue)
        plan = bulk_run.plan_run(
            found.source,
            folder=folder,
            description=source,
            output=found.output,
            recipe=recipe_value,
        )
    _describe_plan(console, plan, recipe)
    if dry_run or app_config.queue is None:
        _count(console, plan)
        console.print("Nothing was sent (dry run).")
        return
    before = JobList(folder).sent()
    if before is not None and before.complete:
        console.print(
            f"Run {run} was sent before, all {before.jobs:,} images of it; nothing was sent now. "
            f"For its failures: foreedge redrive {run}; for what is missing: foreedge verify {run}",
            highlight=False,
        )
        return
    if before is not None:
        console.print(f"It goes on after {before.jobs:,} messages that were sent before.")
    client = aws_client("sqs", app_config.aws, connections=SEND_THREADS)
    console.print(f"Run     {run}", highlight=False)
    try:
        with terminate_as_interrupt(), _bar(console) as progress:
            if found.uploads and before is None:
                task = progress.add_task("Uploading", total=len(found.uploads), detail="")
                upload_files(store, found.uploads, lambda n: progress.update(task, advance=n))
            manifest = bulk_run.send_run(
                QueueClient(client, app_config.queue.url),
                plan,
                _Sending(progress, found.source),
                rate,
            )
    except KeyboardInterrupt:
        sent = JobList(folder).sent()
        number = sent.jobs if sent else 0
        console.print(f"Stopped: {number:,} messages are on the queue, nothing is lost.")
        options: dict[str, object] = {"--output": output, "--upload-to": upload_to}
        options |= {"--config": config}
        options |= {"--queue": queue, "--ledger-bucket": ledger_bucket}
        options |= {"--endpoint-url": endpoint_url, "--rate": rate, "--recipe": recipe}
        words = ["foreedge", "bulk", source, "--run-id", run]
        words += [str(word) for pair in options.items() if pair[1] is not None for word in pair]
        words += ["--url-encoded-keys"] if url_encoded_keys else []
        console.print(f"Go on:  {escape(shlex.join(words))}", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    console.print(f"{manifest.jobs:,} messages are on the queue.")
    if not wait:
        console.print(f"Watch it:  foreedge status {manifest.run_id} --watch", highlight=False)
        return
    backlog = run_commands.backlog_of(app_config, manifest)
    run_commands.watch(console, RunMonitor(folder, manifest, backlog))


class _Sending:
    """Moves the bar while a run is sent."""

    def __init__(self, progress: Progress, photographs: sources.ImageSource) -> None:
        self._progress, self._photographs = progress, photographs
        self._task = progress.add_task("Sending", total=None, detail="")
        self._rate = Rate()

    def __call__(self, *, sent: int, listed: int, complete: bool) -> None:
        """See ``bulk.Observer``."""
        per_s = self._rate.after(sent)
        total = listed if complete else self._photographs.total
        detail = f"{sent:,} of {total or listed:,}{'' if total else ' found so far'}"
        detail += f" · {per_s:,.0f} messages/s"
        if total and per_s:
            detail += f" · {format_duration((total - sent) / per_s)} left"
        self._progress.update(self._task, total=total, completed=sent, detail=detail)


@app.command()
def serve(
    config: ConfigOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of HTTP.")] = 8000,
    settings: SetOption = None,
    model: Annotated[list[str] | None, typer.Option(help="A model to serve; repeatable.")] = None,
    dashboard: Annotated[bool, typer.Option(help="Run Ray's dashboard.")] = False,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Run the application on this machine until Ctrl-C."""
    from ingest.local.application import serving
    from ingest.local.processes import wait_for_interrupt

    args = merge_settings(config, queue, ledger_bucket, endpoint_url, settings)
    if model:
        args["models"] = list(model)
    http = (loaded := AppConfig.load(args)).http
    # Here they are read only to say at once what is wrong with them.
    read_api_keys(http, loaded.aws)
    console = Console()
    with serving(args, host=host, port=port, dashboard=dashboard) as endpoints:
        console.print(f"Cut-outs   {endpoints.http}/v1/cutout", highlight=False)
        console.print(f"Readiness  {endpoints.http}/readyz", highlight=False)
        if endpoints.dashboard:
            console.print(f"Dashboard  {endpoints.dashboard}", highlight=False)
        if not http.authenticates:
            _say_that_it_is_open(console, host)
        wait_for_interrupt()
        console.print("Stopping …")


@app.command()
def demo(
    images: Annotated[
        Path | None, typer.Option(help="Folder of photographs; else some are made.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Photographs to make.")] = 24,
    out: Annotated[Path, typer.Option(help="Folder of what comes out.")] = Path("out/demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running until Ctrl-C.")] = False,
    seed: Annotated[int, typer.Option(help="Of the photographs that are made.")] = 72,
) -> None:
    """The whole way on this machine: photographs, queue, application, results, report."""
    from ingest.cli.demo import DemoOptions, run

    raise typer.Exit(run(DemoOptions(images, count, out, keep, seed), Console()))


@app.command()
def plan(
    images: Annotated[str, typer.Option(help="How many, as in 250k or 10M.")],
    deadline: Annotated[str, typer.Option(help="In which they are to be done, as in 24h.")],
    instance: Annotated[str, typer.Option(help="Type of the nodes.")] = "c8g.4xlarge",
    spot: Annotated[bool, typer.Option("--spot", help="Spot nodes.")] = False,
    model: Annotated[str, typer.Option(help="One that the profile has a time for.")] = "folio",
    profile: Annotated[
        Path | None, typer.Option(help="Measured seconds; else those that the package brings.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0.0001, help="Of a node and hour, in US dollars.")
    ] = None,
    spot_fraction: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Spot price by price on demand.")
    ] = None,
    time_factor: Annotated[
        float | None,
        typer.Option(min=0.01, help="The instance's seconds by those of the profile's machine."),
    ] = None,
    node_start: Annotated[str, typer.Option(help="Until a new node takes replicas.")] = "2min",
    plot: Annotated[Path | None, typer.Option(help="PNG file of the simulated run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say which nodes, hours and money a run takes; simulates it."""
    prices = read_prices()
    request = PlanRequest(
        images=parse_count(images),
        deadline_s=parse_duration(deadline),
        instance=find_instance(instance, prices),
        model=model,
        spot=spot,
        price_per_hour=price,
        spot_fraction=spot_fraction,
        time_factor=time_factor,
        node_start_s=parse_duration(node_start),
    )
    measured = read_profile(profile)
    made = make_plan(request, measured, prices)
    if as_json:
        print(orjson.dumps(plan_as_json(made)).decode())
    else:
        print_plan(made, compare_families(request, measured, prices), Console())
    if plot is not None:
        plot_plan(made, plot)
        if not as_json:
            Console().print(f"Plot  {plot}", highlight=False, soft_wrap=True)


def _say_that_it_is_open(console: Console, host: str) -> None:
    if host in _LOOPBACK:
        console.print("Open to this machine alone, and to all who are on it: no API keys.")
        return
    console.print(
        f"[bold red]OPEN: no API keys are configured, and whoever reaches {host} can use this "
        "endpoint.[/bold red] Set http.api_keys_file (or FOREEDGE_HTTP__API_KEYS).",
        highlight=False,
    )


def _bar(console: Console) -> Progress:
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console)


def _describe_plan(console: Console, plan: bulk_run.RunPlan, recipe: str) -> None:
    total = plan.source.total
    number = "Images" if total is None else f"{total:,} images"
    console.print(f"{number} from {plan.description}", markup=False, highlight=False)
    entries = plan.entries()
    for _, entry in zip(range(3), entries, strict=False):
        console.print(f"  s3://{entry.bucket}/{entry.key}", markup=False, highlight=False)
    if next(entries, None) is not None:
        console.print("  …")
    console.print(f"Recipe  {recipe}", markup=False, highlight=False)
    where = f"s3://{plan.output.bucket}/{plan.output.prefix}"
    console.print(f"Output  {where}", markup=False, highlight=False)


def _count(console: Console, plan: bulk_run.RunPlan) -> None:
    """Say how many photographs a run has, where that is not known yet."""
    if plan.source.total is not None:
        return
    with console.status("Counting …"):
        number = sum(1 for _ in plan.entries())
    console.print(f"{number:,} images, each once", highlight=False)
    if skipped := plan.source.skipped:
        console.print(f"  {skipped:,} other names skipped", highlight=False)
