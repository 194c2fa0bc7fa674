"""``foreedge catalog``: check an installation for catalog jobs, release jobs, list their images."""

from __future__ import annotations

from typing import Annotated

import typer

from ingest.cli.catalog_compare import compare_results
from ingest.cli.catalog_database import open_database, require_catalog
from ingest.cli.catalog_enqueue import enqueue_books
from ingest.cli.catalog_manifest import print_manifest
from ingest.cli.catalog_sweep import sweep_jobs
from ingest.cli.catalog_verify import verify_collection
from ingest.cli.doctor import print_findings
from ingest.cli.options import ConfigOption, EndpointOption, JsonOption, SetOption
from ingest.cli.settings import load_config, merge_settings, with_bundled_model
from ingest.cli.terminal import print_json, print_line
from ingest.units import counted, parse_duration
from serve_app.config import AppConfig

catalog_app = typer.Typer(
    no_args_is_help=True, help="Check and repair jobs on the tables of a book collection."
)
catalog_app.command("enqueue")(enqueue_books)
catalog_app.command("manifest")(print_manifest)
catalog_app.command("sweep")(sweep_jobs)
catalog_app.command("compare")(compare_results)
catalog_app.command("verify")(verify_collection)

OlderThanOption = Annotated[
    str | None,
    typer.Option("--older-than", help="Leave jobs that were taken lately, e.g. within 15m."),
]


@catalog_app.command("check")
def check_setup(
    config: ConfigOption = None,
    settings: SetOption = None,
    endpoint_url: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check database, tables, rights, bucket, queue, ledger and models. Exits with 1 if one fails.

    It changes nothing but a probe in the ledger, and cuts out an image with each model if all else
    is well. It is the same as foreedge doctor, and needs settings with a catalog.
    """
    args = with_bundled_model(merge_settings(config, None, None, endpoint_url, settings))
    require_catalog(AppConfig.load(args))
    print_findings(args, as_json)


@catalog_app.command("release")
def release_taken(
    config: ConfigOption = None,
    settings: SetOption = None,
    older_than: OlderThanOption = None,
    endpoint_url: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let jobs that were taken wait again, after consumers were killed.

    Stop all consumers first. The worker that Foreedge replaces acknowledges the message of a job
    that says ``processing``, and does nothing for it.
    """
    age_s = 0.0 if older_than is None else parse_duration(older_than)
    loaded = load_config(config, None, None, endpoint_url, settings)
    with open_database(loaded) as database:
        # The packages of the catalog are in an extra.
        from ingest.catalog import rows

        released = database.run(lambda connection: rows.release(connection, age_s))
    if as_json:
        print_json({"released": released})
    else:
        print_line(f"Released {counted(released, 'job')}.")
