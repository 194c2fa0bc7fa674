"""``foreedge serve``: run the application on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from ingest.cli.options import (
    ConfigOption,
    EndpointOption,
    JsonOption,
    LedgerOption,
    QueueOption,
    SetOption,
)
from ingest.cli.settings import merge_settings, with_bundled_model
from ingest.cli.terminal import open_terminal, print_json
from ingest.local.application import serving
from ingest.local.monitor import find_monitor
from ingest.local.processes import wait_for_interrupt
from serve_app.config import AppConfig
from serve_app.http.api_keys import read_api_keys

_LOOPBACK = {"127.0.0.1", "localhost"}

HostOption = Annotated[str, typer.Option(help="IPv4 address to listen on.")]
PortOption = Annotated[int, typer.Option(min=1, max=65535, help="Port of the HTTP endpoint.")]
ModelsOption = Annotated[
    list[str] | None, typer.Option("--model", help="Model to serve. Repeatable.")
]
DashboardOption = Annotated[bool, typer.Option("--dashboard", help="Run Ray's dashboard as well.")]
MonitorOption = Annotated[
    bool,
    typer.Option(
        "--monitor",
        help="Run Prometheus as well, with our alerts, and Ray's dashboard. Prometheus must be "
        "installed.",
    ),
]


def serve(
    config: ConfigOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    settings: SetOption = None,
    model: ModelsOption = None,
    dashboard: DashboardOption = False,
    monitor: MonitorOption = False,
    as_json: JsonOption = False,
    queue: QueueOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
) -> None:
    """Run the application on this machine until Ctrl-C."""
    args = merge_settings(config, queue, ledger_bucket, endpoint_url, settings)
    if model:
        args["models"] = list(model)
    args = with_bundled_model(args)
    loaded = AppConfig.load(args)
    # Only to report wrong keys now. Each HttpApi replica reads them again.
    read_api_keys(loaded.http, loaded.aws)
    console = open_terminal(as_json=as_json)
    prometheus = find_monitor() if monitor else None
    with serving(
        args, host=host, port=port, dashboard=dashboard or monitor, monitor=prometheus
    ) as endpoints:
        console.print(f"Cut-outs   {endpoints.http}/v1/cutout", highlight=False)
        console.print(f"Readiness  {endpoints.http}/readyz", highlight=False)
        console.print(f"Operations {endpoints.http}/ops", highlight=False)
        if endpoints.dashboard:
            console.print(f"Dashboard  {endpoints.dashboard}", highlight=False)
        if endpoints.dashboard_token:
            console.print(f"Its token  {endpoints.dashboard_token}", highlight=False)
        if endpoints.prometheus:
            console.print(f"Prometheus {endpoints.prometheus}/alerts", highlight=False)
        if as_json:
            print_json(asdict(endpoints))
        if not loaded.http.authenticates:
            _warn_of_open_access(console, host)
        wait_for_interrupt()
        console.print("Stopping …")


def _warn_of_open_access(console: Console, host: str) -> None:
    if host in _LOOPBACK:
        console.print("No API keys are configured: everyone on this machine can use the endpoint.")
        return
    console.print(
        f"[bold red]OPEN: no API keys are configured, so everyone who can reach {host} can use "
        "this endpoint.[/bold red] Set http.api_keys_file (or FOREEDGE_HTTP__API_KEYS).",
        highlight=False,
    )
