"""The transaction that enters a cut-out into the rows of its book, and completes the job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Integer, column, func, insert, select, update, values

from ingest.catalog.database import RowsChanged
from ingest.catalog.rows import Missing, completed_job, lock_job, read_images
from ingest.catalog.rules import BookImage, arrange, find_cutout
from ingest.catalog.tables import BOOKS, IMAGES, JOBS
from serve_app.contracts.job import CatalogJob
from serve_app.errors import SourceDeleted


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


@dataclass(frozen=True, slots=True)
class Entered:
    """A job whose cut-out is in the rows of its book."""

    s3_key: str | None
    """``s3_key`` of the cut-out. None if somebody has deleted the cut-out since."""


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
    row = lock_job(connection, job, nowait=True)
    if row is None:
        return Missing(book_exists=True)
    if row.status == "completed":
        present = completed_job(row, images, None).s3_key
        if present is None or present == cutout.s3_key or not again:
            return Entered(present)
    if not any(image.id == cutout.source_id for image in images):
        raise SourceDeleted(
            f"image {cutout.source_id} of book {job.book_id} was deleted while it was cut out"
        )
    present_id = row.processed_image_id if row.status == "completed" else None
    cutout_id = _enter_cutout(connection, job.book_id, images, cutout, present_id)
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


def _lock_images(connection: Connection, book_id: int) -> list[BookImage]:
    """Lock all images of a book, and return them as they are once they are locked.

    The statement that locks finds the rows that existed when it began. Another one may have been
    inserted meanwhile, and would be left out of the order.
    """
    query = select(IMAGES.c.id).where(IMAGES.c.book_id == book_id).order_by(IMAGES.c.id)
    locked = connection.scalars(query.with_for_update(key_share=True, nowait=True)).all()
    images = read_images(connection, book_id)
    if {image.id for image in images} != set(locked):
        raise RowsChanged(f"the images of book {book_id} changed while they were locked")
    return images


def _enter_cutout(
    connection: Connection,
    book_id: int,
    images: Sequence[BookImage],
    cutout: CutoutRow,
    present_id: int | None,
) -> int:
    """Return the id of the row of a cut-out, which is inserted if its source has none yet.

    Args:
        connection: Connection in a transaction.
        book_id: Id of the book.
        images: Images of the book.
        cutout: What was made.
        present_id: Id of the row whose objects were made again. None if they are new.
    """
    names = {"s3_key": cutout.s3_key, "cloudfront_url": cutout.cloudfront_url}
    present = find_cutout(images, book_id, cutout.source_id)
    if present is None:
        present = next((image for image in images if image.id == present_id), None)
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
