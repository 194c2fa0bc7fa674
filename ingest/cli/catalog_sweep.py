"""``foreedge catalog sweep``: send the jobs that need a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ingest.cli.catalog_database import open_database, require_catalog
from ingest.cli.exit_codes import FAILED
from ingest.cli.options import (
    CodeOption,
    ConfigOption,
    EndpointOption,
    JsonOption,
    QueueOption,
    SetOption,
)
from ingest.cli.settings import load_config
from ingest.cli.terminal import print_json, print_line, running_count
from serve_app.errors import InvalidConfig

if TYPE_CHECKING:
    from ingest.catalog.sweep import Swept

PermanentlyFailedOption = Annotated[
    bool,
    typer.Option(
        "--permanently-failed", help="Send the jobs too that the application has given up to send."
    ),
]
FailedOption = Annotated[bool, typer.Option("--failed", help="Send the jobs too that have failed.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Most jobs to look at.")]


def sweep_jobs(
    permanently_failed: PermanentlyFailedOption = False,
    failed: FailedOption = False,
    code: CodeOption = None,
    limit: LimitOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    queue: QueueOption = None,
    endpoint_url: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send the jobs that need a message: those never sent, and those lost on their way.

    Consumers do so every five minutes. Two sweeps at once do no harm. Exits with 4 if the queue or
    the database does not answer.
    """
    if code is not None and not failed:
        raise InvalidConfig("--code selects failures; give --failed with it")
    loaded = load_config(config, queue, None, endpoint_url, settings)
    catalog = require_catalog(loaded)
    if loaded.queue is None:
        raise InvalidConfig("no queue is configured. Give --queue, or set queue.url")
    with open_database(loaded) as database, running_count("jobs looked at") as on_found:
        # The packages of the catalog are in an extra.
        from ingest.catalog.sweep import sweep, sweep_queue
        from ingest.catalog.unsent import Wanted

        wanted = Wanted(
            lost_after_s=catalog.lost_after_s,
            stale_after_s=loaded.queue.job_deadline_s,
            permanently_failed=permanently_failed,
            failed=failed,
            code=code,
        )
        client = sweep_queue(loaded.queue.url, loaded.aws)
        swept = sweep(database, client, wanted, limit=limit, on_row=lambda _: on_found(1))
    _print_swept(swept, as_json)
    if swept.error is not None:
        raise swept.error
    if swept.ends["failing"]:
        raise typer.Exit(FAILED)


def _print_swept(swept: Swept, as_json: bool) -> None:
    # The packages of the catalog are in an extra.
    from ingest.catalog.sweep import ENDS

    if as_json:
        error = None if swept.error is None else swept.error.code
        print_json({**{end: swept.ends[end] for end in ENDS}, "error": error})
        return
    print_line(f"Jobs sent: {swept.ends['sent']:,}")
    for end, meaning in ENDS.items():
        if end != "sent" and (number := swept.ends[end]):
            print_line(f"  {end}: {number:,} ({meaning})")
