"""Every transaction on the application's tables: the only SQL of Foreedge.

Each function is the body of one transaction in READ COMMITTED, which ``Database.run`` begins,
commits and repeats. While a function holds a lock, it never waits for another one: rows that the
application holds raise at once, and the transaction begins again. So no statement of ours takes
part in a deadlock, and no request of a user waits for more than one of our transactions, which
take milliseconds.

Rows are locked FOR NO KEY UPDATE. It keeps them from being changed and deleted, and lets the
application insert rows that refer to them, such as a new job for an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Integer, Row, column, func, insert, select, update, values
from sqlalchemy.exc import IntegrityError

from ingest.catalog.database import RowsChanged
from ingest.catalog.rules import (
    BookImage,
    arrange,
    choose_source,
    find_cutout,
    source_of_cutout,
)
from ingest.catalog.tables import ACTIVE, BOOKS, IMAGES, JOBS
from serve_app.contracts.job import CatalogJob
from serve_app.contracts.outcome import Outcome
from serve_app.errors import InvalidMessage, SourceDeleted

_REASON_LENGTH = 1_000
_IMAGE_COLUMNS = (
    IMAGES.c.id,
    IMAGES.c.s3_key,
    IMAGES.c.image_type,
    IMAGES.c.display_order,
    IMAGES.c.is_primary,
    IMAGES.c.is_background_processed,
)


JobRow = Row[*tuple[Any, ...]]


class Superseded(Exception):
    """A newer job for the same image is active, so this one is left to it."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job whose row says ``processing`` now."""

    source: BookImage
    """Image to cut out."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A job that is completed."""

    s3_key: str | None
    """``s3_key`` of its cut-out. None if somebody has deleted the cut-out since."""
    source: BookImage | None = None
    """Image to cut out if an object of the cut-out is missing. None if there is none."""


@dataclass(frozen=True, slots=True)
class Entered:
    """A job whose cut-out is in the rows of its book."""

    s3_key: str | None
    """``s3_key`` of the cut-out. None if somebody has deleted the cut-out since."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A job without a row."""

    book_exists: bool
    """Whether its book exists. The rows of a book's jobs are deleted with it."""


@dataclass(frozen=True, slots=True)
class CutoutRow:
    """What the rows say of a finished cut-out."""

    source_id: int
    """Id of the image that was cut out."""
    s3_key: str
    """Key of the cut-out, without the prefix."""
    cloudfront_url: str | None
    """URL of the cut-out, or None."""
    model_used: str
    """Name of the model."""


def claim(connection: Connection, job: CatalogJob) -> Claimed | Completed | Missing:
    """Take a job, whatever its state is, unless it is completed.

    Args:
        connection: Connection in a transaction.
        job: Job of the message.

    Raises:
        InvalidMessage: The row names another book than the message.
        SourceDeleted: The book has no image.
        Superseded: A newer job for the same image is active.
    """
    row = _lock_job(connection, job, nowait=False)
    if row is None:
        book = connection.scalar(select(BOOKS.c.id).where(BOOKS.c.id == job.book_id))
        return Missing(book_exists=book is not None)
    if row.book_id != job.book_id:
        raise InvalidMessage(
            f"job {job.job_id} belongs to book {row.book_id}, and the message names book "
            f"{job.book_id}; nothing was changed"
        )
    images = _read_images(connection, job.book_id)
    source = choose_source(images, _asked_id(row, job))
    if row.status == "completed":
        return _completed(row, images, source)
    if source is None:
        raise SourceDeleted(f"book {job.book_id} of job {job.job_id} has no image")
    taken = {
        "status": "processing",
        "attempt_count": JOBS.c.attempt_count + 1,
        "updated_at": func.now(),
        "completed_at": None,
    }
    try:
        connection.execute(update(JOBS).where(JOBS.c.id == row.id).values(taken))
    except IntegrityError as error:
        # The only uniqueness that a state takes part in is that of active jobs for one image.
        if row.status not in ACTIVE and getattr(error.orig, "sqlstate", None) == "23505":
            raise Superseded(f"job {job.job_id}: a newer job for its image is active") from error
        raise
    return Claimed(source)


def finish(
    connection: Connection, job: CatalogJob, cutout: CutoutRow, *, again: bool = False
) -> Entered | Missing:
    """Enter a cut-out into the rows of its book, and complete the job.

    The book gets one cut-out for each image, which is its first and primary image. A transaction
    whose COMMIT was not answered can be repeated: it then finds the job completed.

    Args:
        connection: Connection in a transaction.
        job: Job of the message.
        cutout: What was made.
        again: Whether the objects of a completed job were made again, perhaps under another name.

    Raises:
        SourceDeleted: The image that was cut out does not exist any more.
        RowsChanged: Images of the book came or went; begin again.
    """
    book = select(BOOKS.c.id).where(BOOKS.c.id == job.book_id)
    # FOR KEY SHARE: the book stays, and whoever edits it does not wait.
    if connection.scalar(book.with_for_update(read=True, key_share=True, nowait=True)) is None:
        return Missing(book_exists=False)
    images = _lock_images(connection, job.book_id)
    row = _lock_job(connection, job, nowait=True)
    if row is None:
        return Missing(book_exists=True)
    if row.status == "completed":
        present = _completed(row, images, None).s3_key
        if present is None or present == cutout.s3_key or not again:
            return Entered(present)
    if not any(image.id == cutout.source_id for image in images):
        raise SourceDeleted(
            f"image {cutout.source_id} of book {job.book_id} was deleted while it was cut out"
        )
    cutout_id = _enter_cutout(connection, job.book_id, images, cutout)
    _move(connection, images, arrange(images, cutout_id, cutout.source_id))
    completed = {
        "status": "completed",
        "processed_image_id": cutout_id,
        "model_used": cutout.model_used,
        "failure_reason": None,
        "updated_at": func.now(),
        "completed_at": func.now(),
    }
    connection.execute(update(JOBS).where(JOBS.c.id == row.id).values(completed))
    return Entered(cutout.s3_key)


def fail(connection: Connection, outcome: Outcome) -> None:
    """Write the final failure of a job to its row, unless the job has ended otherwise."""
    if (job_id := _uuid(outcome.job_id)) is None:
        return
    failed = {
        "status": "failed",
        "failure_reason": f"{outcome.code}: {outcome.message}"[:_REASON_LENGTH],
        "updated_at": func.now(),
        "completed_at": func.now(),
    }
    connection.execute(
        update(JOBS)
        .where(JOBS.c.id == job_id, JOBS.c.book_id == outcome.book_id)
        .where(JOBS.c.status.in_(ACTIVE))
        .values(failed)
    )


def give_back(connection: Connection, job: CatalogJob) -> None:
    """Let a job that was taken wait again. The worker that Foreedge replaces can then take it."""
    waits = {"status": "pending", "updated_at": func.now()}
    connection.execute(
        update(JOBS)
        .where(JOBS.c.id == UUID(job.job_id), JOBS.c.status == "processing")
        .values(waits)
    )


def release(connection: Connection, older_than_s: float) -> int:
    """Let every job that was taken wait again, and return their number.

    Args:
        connection: Connection in a transaction.
        older_than_s: Jobs that were taken less than this time ago, in seconds, are left.
    """
    age = func.make_interval(0, 0, 0, 0, 0, 0, older_than_s)
    result = connection.execute(
        update(JOBS)
        .where(JOBS.c.status == "processing")
        .where(func.coalesce(JOBS.c.updated_at, func.now() - age) <= func.now() - age)
        .values({"status": "pending", "updated_at": func.now()})
    )
    return result.rowcount


def _asked_id(row: JobRow, job: CatalogJob) -> int | None:
    """Return the id of the image that was asked for. The row forgets one that is deleted."""
    asked: int | None = row.source_image_id
    return job.image_id if asked is None else asked


def _completed(row: JobRow, images: Sequence[BookImage], chosen: BookImage | None) -> Completed:
    """Return a completed job, whose cut-out says of which image it is made."""
    cutout = next((image for image in images if image.id == row.processed_image_id), None)
    if cutout is None:
        return Completed(None)
    source_id = source_of_cutout(cutout.s3_key, row.book_id)
    made_of = next((image for image in images if image.id == source_id), None)
    return Completed(cutout.s3_key, made_of or chosen)


def _lock_job(connection: Connection, job: CatalogJob, *, nowait: bool) -> JobRow | None:
    columns = (
        JOBS.c.id,
        JOBS.c.book_id,
        JOBS.c.status,
        JOBS.c.source_image_id,
        JOBS.c.processed_image_id,
    )
    query = select(*columns).where(JOBS.c.id == UUID(job.job_id))
    return connection.execute(query.with_for_update(key_share=True, nowait=nowait)).first()


def _read_images(connection: Connection, book_id: int) -> list[BookImage]:
    query = select(*_IMAGE_COLUMNS).where(IMAGES.c.book_id == book_id)
    return [BookImage(*row) for row in connection.execute(query)]


def _lock_images(connection: Connection, book_id: int) -> list[BookImage]:
    """Lock all images of a book, and return them as they are once they are locked.

    The statement that locks finds the rows that existed when it began. Another one may have been
    inserted meanwhile, and would be left out of the order.
    """
    query = select(IMAGES.c.id).where(IMAGES.c.book_id == book_id).order_by(IMAGES.c.id)
    locked = connection.scalars(query.with_for_update(key_share=True, nowait=True)).all()
    images = _read_images(connection, book_id)
    if {image.id for image in images} != set(locked):
        raise RowsChanged(f"the images of book {book_id} changed while they were locked")
    return images


def _enter_cutout(
    connection: Connection, book_id: int, images: Sequence[BookImage], cutout: CutoutRow
) -> int:
    """Return the id of the row of a cut-out, which is inserted if its source has none yet."""
    names = {"s3_key": cutout.s3_key, "cloudfront_url": cutout.cloudfront_url}
    present = find_cutout(images, book_id, cutout.source_id)
    if present is None:
        new = {
            **names,
            "book_id": book_id,
            "display_order": 0,
            "is_primary": True,
            "is_background_processed": True,
        }
        inserted: int = connection.execute(
            insert(IMAGES).values(new).returning(IMAGES.c.id)
        ).scalar_one()
        return inserted
    if present.s3_key != cutout.s3_key:
        connection.execute(update(IMAGES).where(IMAGES.c.id == present.id).values(names))
    return present.id


def _move(connection: Connection, images: Sequence[BookImage], order: Sequence[int]) -> None:
    """Give the images of a book their positions. Only the first one is primary.

    Args:
        connection: Connection in a transaction.
        images: Images with the positions that they have.
        order: Ids of all images in their new order.
    """
    present = {image.id: (image.display_order, image.is_primary) for image in images}
    moved = [
        (image_id, position)
        for position, image_id in enumerate(order)
        # A cut-out that was inserted has its position already.
        if present.get(image_id, (0, True)) != (position, position == 0)
    ]
    if not moved:
        return
    place = values(column("id", Integer), column("position", Integer), name="place").data(moved)
    connection.execute(
        update(IMAGES)
        .where(IMAGES.c.id == place.c.id)
        .values(display_order=place.c.position, is_primary=place.c.position == 0)
    )


def _uuid(job_id: str) -> UUID | None:
    """Return the id of a job as the database has it. A dead letter may name any text."""
    try:
        return UUID(job_id)
    except ValueError:
        return None
