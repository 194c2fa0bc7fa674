"""``foreedge catalog verify``: what is wrong in the tables and the bucket of a collection."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.cli.catalog_database import (
    BooksOption,
    open_database,
    parse_books,
    require_catalog,
)
from ingest.cli.exit_codes import FAILED
from ingest.cli.options import ConfigOption, EndpointOption, JsonOption, SetOption
from ingest.cli.settings import load_config
from ingest.cli.terminal import print_json, print_line
from ingest.units import counted, parse_duration
from serve_app.errors import InvalidConfig
from serve_app.storage import open_store

if TYPE_CHECKING:
    from ingest.catalog.book_problems import CollectionProblem
    from ingest.catalog.verify import Looked

OlderThanOption = Annotated[
    str,
    typer.Option("--older-than", help="Time after which a job that waits counts as lost."),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option("--ignore", help="Kind of problem to leave out, may be repeated."),
]


def verify_collection(
    books: BooksOption = None,
    older_than: OlderThanOption = "1d",
    ignore: IgnoreOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    endpoint_url: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look for what is wrong with the books, their cut-outs, the jobs and the bucket.

    It changes nothing, prints each problem as it is found, and exits with 1 if there is one. With
    --json, each problem is one line, and the last line has the totals.
    """
    loaded = load_config(config, None, None, endpoint_url, settings)
    bucket, chosen = require_catalog(loaded).images_bucket, parse_books(books)
    waiting_s, ignored = parse_duration(older_than), set(ignore or [])
    with open_database(loaded) as database:
        # The packages of the catalog are in an extra.
        from ingest.catalog.book_problems import KINDS
        from ingest.catalog.verify import CollectionCheck, Patience

        if unknown := sorted(ignored - KINDS.keys()):
            raise InvalidConfig(f"--ignore {unknown[0]}: choose from {', '.join(KINDS)}")
        # A catalog needs a queue, whose deadline is how long a consumer works on a job.
        taken_s = 0.0 if loaded.queue is None else loaded.queue.job_deadline_s
        check = CollectionCheck(database, open_store(loaded), bucket, Patience(taken_s, waiting_s))
        sound = True
        for problem in check.problems(chosen):
            if problem.kind not in ignored:
                sound = False
                _print(problem, as_json)
    _print_totals(check.looked, sound, as_json)
    if not sound:
        raise typer.Exit(FAILED)


def _print(problem: CollectionProblem, as_json: bool) -> None:
    if as_json:
        print_json({name: value for name, value in asdict(problem).items() if value is not None})
        return
    where = "bucket" if problem.book_id is None else f"book {problem.book_id}"
    parts = [f"{problem.kind:<18} {where}"]
    if problem.image_id is not None:
        parts.append(f"image {problem.image_id}")
    if problem.job_id is not None:
        parts.append(f"job {problem.job_id}")
    print_line(f"{', '.join(parts)}: {problem.detail}")


def _print_totals(looked: Looked, sound: bool, as_json: bool) -> None:
    if as_json:
        print_json({"sound": sound, **asdict(looked), "problems": dict(looked.problems)})
        return
    seen = ", ".join(
        (
            counted(looked.books, "book"),
            counted(looked.images, "image"),
            counted(looked.cutouts, "cut-out"),
            counted(looked.objects, "object"),
        )
    )
    found = ", ".join(f"{kind} {number:,}" for kind, number in looked.problems.most_common())
    print_line(f"{seen} looked at. {found or 'Nothing is wrong.'}")
