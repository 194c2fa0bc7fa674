"""The ``foreedge`` command.

Exit codes: 0 all done; 1 some images failed, or a service did not answer; 2 usage or
configuration.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import Progress

from ingest import arguments, sources
from ingest import bulk as bulk_run
from ingest.ledger import read_manifest
from ingest.progress import Standing, Tally, describe, follow, show
from ingest.report import read_report, write_report
from serve_app.config import AppConfig, LedgerConfig
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.http_keys import read_keys
from serve_app.storage import aws_client, open_store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Removes the backgrounds of very many photographs.",
)

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file: settings, or a Serve file with applications."),
]
QueueOption = Annotated[str | None, typer.Option("--queue", help="URL of the SQS queue.")]
LedgerOption = Annotated[
    str | None, typer.Option("--ledger-bucket", help="Bucket where results of runs are recorded.")
]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint-url", help="Of a local server instead of AWS.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, as in segmenter.threads=4.")
]
RunArgument = Annotated[str, typer.Argument(help="The run's id, as foreedge bulk prints it.")]


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
        str, typer.Argument(help="s3://bucket/prefix, a CSV or JSONL manifest, or a folder.")
    ],
    output: Annotated[str | None, typer.Option(help="s3://bucket/prefix of the results.")] = None,
    recipe: Annotated[
        str, typer.Option(help="A preset (cutout, catalog, mask), or a JSON object.")
    ] = "cutout",
    run_id: Annotated[str | None, typer.Option(help="Name of the run; a new one if left out.")] = (
        None
    ),
    upload_to: Annotated[
        str | None,
        typer.Option(help="For a folder: s3://bucket/prefix of the photographs."),
    ] = None,
    url_encoded_keys: Annotated[
        bool, typer.Option(help="The manifest's keys are URL-encoded, as S3's inventories are.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch the run to its end.")] = False,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Put a run on the queue: one message for each photograph."""
    console = Console()
    app_config = arguments.app_config(config, queue, ledger_bucket, endpoint_url)
    ledger = _ledger(app_config)
    if app_config.queue is None and not dry_run:
        raise InvalidConfig("which queue? Give --queue or FOREEDGE_QUEUE__URL")
    store = open_store(app_config)
    recipe_value = bulk_run.recipe_argument(recipe)
    run = run_id or bulk_run.new_run_id()
    places = arguments.Places(output, upload_to, url_encoded_keys)
    found = arguments.collect(source, places, run, store, ledger, app_config.queue)
    plan = bulk_run.plan(
        found.entries,
        run_id=run,
        description=source,
        output=found.output,
        recipe=recipe_value,
    )
    _describe_plan(console, plan, found.skipped, recipe)
    if dry_run or app_config.queue is None:
        console.print("Nothing was sent (dry run).")
        return
    if found.uploads:
        with Progress(console=console) as progress:
            task = progress.add_task("Uploading", total=len(found.uploads))
            sources.upload(store, found.uploads, lambda n: progress.update(task, advance=n))
    # Before the first message: it is what an interrupted run is sent again under.
    console.print(f"Run     {run}", markup=False, highlight=False)
    client = aws_client("sqs", app_config.aws)
    with Progress(console=console) as progress:
        task = progress.add_task("Sending", total=len(plan.entries))
        manifest = bulk_run.send(
            client,
            app_config.queue.url,
            store,
            ledger,
            plan,
            lambda n: progress.update(task, advance=n),
        )
    if not wait:
        console.print(f"Watch it:  foreedge status {manifest.run_id} --watch", highlight=False)
        return
    _exit_with(_watch(console, Tally(store, ledger, manifest)), console)


@app.command()
def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Until every job has a result.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Show how far a run is."""
    console = Console()
    app_config = arguments.app_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = _ledger(app_config), open_store(app_config)
    tally = Tally(store, ledger, read_manifest(store, ledger, run))
    if watch and not as_json:
        _exit_with(_watch(console, tally), console)
    now = tally.update()
    if watch:
        for now in follow(tally):
            print(orjson.dumps(now.as_dict()).decode(), flush=True)
    elif as_json:
        print(orjson.dumps(now.as_dict()).decode())
    else:
        console.print(describe(now), highlight=False)
    if watch and now.counts["failed"]:
        raise typer.Exit(1)


@app.command()
def report(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("out/report"),
    pictures: Annotated[int, typer.Option(min=0, help="How many results are shown.")] = 48,
    config: ConfigOption = None,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Write report.json and report.html of a run."""
    app_config = arguments.app_config(config, queue, ledger_bucket, endpoint_url)
    ledger, store = _ledger(app_config), open_store(app_config)
    content = read_report(store, ledger, run)
    page = write_report(content, store, app_config, out, pictures)
    console = Console()
    console.print(describe(content.standing), highlight=False)
    console.print(f"Report  {page}", highlight=False, soft_wrap=True)


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
    from ingest.local_stack import serving, wait_for_interrupt

    args = arguments.settings(config, queue, ledger_bucket, endpoint_url, settings)
    if model:
        args["models"] = list(model)
    http = (loaded := AppConfig.load(args)).http
    # Here they are read only to say at once what is wrong with them.
    read_keys(http, loaded.aws)
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
    seed: Annotated[int, typer.Option(help="Of the photographs that are made.")] = 1,
) -> None:
    """The whole way on this machine: photographs, queue, application, results, report."""
    from ingest.demo import DemoOptions, run

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
    from ingest import plan_report, planning, quantities

    prices = planning.read_prices()
    request = planning.Request(
        images=quantities.count(images),
        deadline_s=quantities.duration_s(deadline),
        instance=planning.find_instance(instance, prices),
        model=model,
        spot=spot,
        price_per_hour=price,
        spot_fraction=spot_fraction,
        time_factor=time_factor,
        node_start_s=quantities.duration_s(node_start),
    )
    measured = planning.read_profile(profile)
    made = planning.make_plan(request, measured, prices)
    if as_json:
        print(orjson.dumps(plan_report.as_json(made)).decode())
    else:
        plan_report.show(made, planning.compare(request, measured, prices), Console())
    if plot is not None:
        plan_report.plot(made, plot)
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


def _ledger(config: AppConfig) -> LedgerConfig:
    if config.ledger is None:
        raise InvalidConfig("which ledger? Give --ledger-bucket or FOREEDGE_LEDGER__BUCKET")
    return config.ledger


def _describe_plan(console: Console, plan: bulk_run.Plan, skipped: int, recipe: str) -> None:
    console.print(
        f"{len(plan.entries):,} images from {plan.description}", markup=False, highlight=False
    )
    if skipped:
        console.print(f"  {skipped:,} other names skipped", highlight=False)
    if plan.duplicates:
        console.print(f"  {plan.duplicates:,} named twice, sent once", highlight=False)
    for entry in plan.entries[:3]:
        console.print(f"  s3://{entry.bucket}/{entry.key}", markup=False, highlight=False)
    if len(plan.entries) > 3:
        console.print("  …")
    console.print(f"Recipe  {recipe}", markup=False, highlight=False)
    where = f"s3://{plan.output.bucket}/{plan.output.prefix}"
    console.print(f"Output  {where}", markup=False, highlight=False)


def _watch(console: Console, tally: Tally) -> Standing:
    return show(console, follow(tally), time.monotonic)


def _exit_with(now: Standing, console: Console) -> None:
    console.print(describe(now), highlight=False)
    raise typer.Exit(1 if now.counts["failed"] else 0)
