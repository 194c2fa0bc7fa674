"""The cut-outs that a collection had before a run, as its tables name them."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, select, text

from ingest.catalog.rules import FOLDER, object_key, source_of_cutout
from ingest.catalog.tables import IMAGES, JOBS


@dataclass(frozen=True, slots=True)
class FormerResult:
    """The cut-out that a job's book had already."""

    book_id: int
    """Id of the book."""
    key: str
    """Key of the object in the bucket."""
    model: str | None
    """What the job says of the model, if the cut-out is that of the job."""


def former_results(connection: Connection, made: dict[str, str | None]) -> dict[str, FormerResult]:
    """Return the former cut-out of each job that has one, by the id of the job.

    It is the cut-out of the job itself, unless that is the result of the run. Otherwise it is the
    newest one of the book whose name does not say of which image it is, as those of the replaced
    worker.

    Args:
        connection: Connection in a transaction.
        made: Keys of the results of a run, by the id of the job.
    """
    connection.execute(text("SET TRANSACTION READ ONLY"))
    ids = {parsed: job_id for job_id in made if (parsed := _parsed(job_id)) is not None}
    query = (
        select(
            JOBS.c.id,
            JOBS.c.book_id,
            (JOBS.c.processed_image_id == IMAGES.c.id).label("own"),
            JOBS.c.model_used,
            IMAGES.c.s3_key,
        )
        .join(IMAGES, IMAGES.c.book_id == JOBS.c.book_id)
        .where(JOBS.c.id.in_(list(ids)), IMAGES.c.is_background_processed)
        .order_by(JOBS.c.id, IMAGES.c.id)
    )
    found: dict[str, FormerResult] = {}
    settled: set[str] = set()
    for row in connection.execute(query):
        job_id, key = ids[row.id], object_key(row.s3_key)
        if key == made[job_id] or job_id in settled:
            continue
        if row.own:
            settled.add(job_id)
            found[job_id] = FormerResult(row.book_id, key, row.model_used)
        elif source_of_cutout(row.s3_key.removeprefix(FOLDER), row.book_id) is None:
            found[job_id] = FormerResult(row.book_id, key, None)
    return found


def _parsed(job_id: str) -> UUID | None:
    """Return the id of a job of the collection. Other runs have other ids."""
    try:
        return UUID(job_id)
    except ValueError:
        return None
