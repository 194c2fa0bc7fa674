"""``foreedge catalog compare``: the results of a run next to the former cut-outs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import orjson
import typer

from ingest.cli.catalog_database import open_database, require_catalog
from ingest.cli.options import (
    ConfigOption,
    EndpointOption,
    JsonOption,
    LedgerOption,
    RunArgument,
    SetOption,
    open_session,
)
from ingest.cli.terminal import open_terminal, print_json, running_count
from ingest.runs.records import Records
from serve_app.errors import SourceNotFound

if TYPE_CHECKING:
    from ingest.catalog.compare import ComparedRun, ResultComparison

OutOption = Annotated[Path, typer.Option(help="Folder of the comparison.")]
PicturesOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=1_000,
        help="Number of comparisons on the page, of the doubtful ones and of the others. 0 leaves "
        "out all images.",
    ),
]


def compare_results(
    run: RunArgument,
    out: OutOption = Path("out/compare"),
    pictures: PicturesOption = 100,
    config: ConfigOption = None,
    settings: SetOption = None,
    ledger_bucket: LedgerOption = None,
    endpoint_url: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the results of a run with the cut-outs that the books have already.

    It compares size, background and mask, and changes nothing. compare.html shows the doubtful
    ones first, and compare.jsonl has every comparison. The run is one whose jobs are those of the
    collection, such as foreedge bulk with the list of foreedge catalog manifest.
    """
    session = open_session(config, None, ledger_bucket, endpoint_url, settings)
    bucket = require_catalog(session.config).images_bucket
    folder = session.run_folder(run)
    with (
        open_database(session.config) as database,
        Records(folder, keep=("done", "skipped_existing")) as records,
    ):
        # The packages of the catalog are in an extra, and the others are slow to load.
        from ingest.catalog.compare import ComparedPlaces, compare_run
        from ingest.catalog.compare_page import render_comparison_page

        with running_count() as on_read:
            records.update(on_read)
        places = ComparedPlaces(database, session.store, bucket, session.config.limits)
        out.mkdir(parents=True, exist_ok=True)
        with running_count("results compared") as on_compared, _lines(out) as file:

            def note(comparison: ResultComparison) -> None:
                file.write(orjson.dumps(asdict(comparison)) + b"\n")
                on_compared(1)

            compared = compare_run(places, records, pictures, note)
        if not compared.compared:
            raise SourceNotFound(
                f"run {folder.run_id} has no result whose job has a former cut-out in the tables. "
                "Send a run with the list of: foreedge catalog manifest --completed"
            )
        page = out / "compare.html"
        html = render_comparison_page(places, folder.run_id, compared, pictures)
        page.write_text(html, encoding="utf-8")
    _print(folder.run_id, compared, page, as_json)


def _lines(out: Path) -> BinaryIO:
    return (out / "compare.jsonl").open("wb")


def _print(run_id: str, compared: ComparedRun, page: Path, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "run_id": run_id,
                "compared": compared.compared,
                "doubtful": compared.doubtful,
                "doubts": dict(compared.doubts),
                "without_former": compared.without_former,
                "histogram": compared.histogram,
                "compare_html": str(page),
            }
        )
        return
    console = open_terminal()
    console.print(
        f"{compared.compared:,} results compared, {compared.doubtful:,} are doubtful. "
        f"{compared.without_former:,} have no former cut-out.",
        highlight=False,
    )
    for doubt, number in compared.doubts.most_common():
        console.print(f"  {doubt}: {number:,}", markup=False, highlight=False)
    console.print(f"Page  {page}", markup=False, highlight=False, soft_wrap=True)
