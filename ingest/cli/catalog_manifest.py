"""``foreedge catalog manifest``: the images that the jobs in the tables would cut out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.cli.catalog_database import open_database, require_catalog
from ingest.cli.options import ConfigOption, EndpointOption, JsonOption, SetOption
from ingest.cli.settings import load_config
from ingest.cli.terminal import print_json, running_count, write_csv

if TYPE_CHECKING:
    from ingest.catalog.selection import ChosenImage

_COLUMNS = ("bucket", "key", "job_id")

CompletedOption = Annotated[
    bool,
    typer.Option(
        "--completed", help="List the images of completed jobs. Otherwise those of all others."
    ),
]
ManifestOption = Annotated[
    str, typer.Option("--csv", help="File to write to, or - for standard output.")
]


def print_manifest(
    completed: CompletedOption = False,
    to_csv: ManifestOption = "-",
    config: ConfigOption = None,
    settings: SetOption = None,
    endpoint_url: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the images that the jobs would cut out, as a manifest for foreedge bulk.

    Nothing is changed. With --json, the manifest has JSON lines instead of CSV, on standard output.
    """
    loaded = load_config(config, None, None, endpoint_url, settings)
    bucket = require_catalog(loaded).images_bucket
    with open_database(loaded) as database, running_count("images found") as on_found:
        # The packages of the catalog are in an extra.
        from ingest.catalog.selection import images_of_jobs

        lines = _lines(images_of_jobs(database, completed=completed), bucket, on_found)
        if as_json:
            for line in lines:
                print_json(dict(zip(_COLUMNS, line, strict=True)))
        else:
            # Written as they are: bulk reads the keys, and no spreadsheet.
            write_csv(to_csv, _COLUMNS, lines, raw=True)


def _lines(
    chosen: Iterator[ChosenImage], bucket: str, on_found: Callable[[int], None]
) -> Iterator[tuple[str, str, str]]:
    # The packages of the catalog are in an extra.
    from ingest.catalog.rules import object_key

    for each in chosen:
        on_found(1)
        yield bucket, object_key(each.image.s3_key), str(each.job_id)
