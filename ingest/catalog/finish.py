"""The transaction that enters a cut-out into the rows of its book, and completes the job.

It has two statements, so that rows are locked for as short a time as possible: the first one locks
and reads them, and the second one writes them. Both are made once, with parameters, since to build
a statement takes longer than to send it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    String,
    Update,
    UpdateBase,
    bindparam,
    column,
    false,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from ingest.catalog.rows import (
    BOOK_ID,
    IMAGE_COLUMNS,
    JOB_ID,
    Missing,
    completed_job,
    ids_of,
)
from ingest.catalog.rules import BookImage, arrange, find_cutout
from ingest.catalog.tables import BOOKS, IMAGES, JOBS
from ingest.catalog.try_again import RowsChanged
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


# FOR KEY SHARE: the book stays, and whoever edits it does not wait.
_BOOK = (
    select(BOOKS.c.id)
    .where(BOOKS.c.id == BOOK_ID)
    .with_for_update(read=True, key_share=True, nowait=True)
    .cte("book")
)
_JOB = (
    select(JOBS.c.book_id, JOBS.c.status, JOBS.c.processed_image_id)
    .where(JOBS.c.id == JOB_ID)
    .with_for_update(key_share=True, nowait=True)
    .cte("job")
)
_IMAGE = (
    select(*IMAGE_COLUMNS)
    .where(IMAGES.c.book_id == BOOK_ID)
    .order_by(IMAGES.c.id)
    .with_for_update(key_share=True, nowait=True)
    .cte("image")
)
_LOCK = select(*_JOB.c, *_IMAGE.c).select_from(
    _BOOK.outerjoin(_JOB, true()).outerjoin(_IMAGE, true())
)
"""Locks the rows, and returns one for each image as it is once it is locked: columns of the job and
those of the image. Without images, the latter are null. Without the job, so are the former. Without
the book, there is no row."""


_SAME = (
    select(literal(1).label("same"))
    .select_from(IMAGES)
    .where(IMAGES.c.book_id == BOOK_ID)
    .having(func.count() == bindparam("locked", type_=Integer))
    .cte("same")
)
"""One row if the book has as many images as were locked, or else none. ``_LOCK`` finds the images
that existed when it began. Another one may have been inserted meanwhile, and would be left out of
the order."""
_IS_SAME = select(_SAME.c.same).exists()
_PLACE = (
    func.unnest(
        bindparam("moved", type_=ARRAY(Integer)), bindparam("positions", type_=ARRAY(Integer))
    )
    .table_valued(column("id", Integer), column("position", Integer))
    .render_derived()
)
_OTHERS = (
    update(IMAGES)
    .where(IMAGES.c.id == _PLACE.c.id, _IS_SAME)
    .values(display_order=_PLACE.c.position, is_primary=false())
    .cte("others")
)
_FIRST: dict[str, ColumnElement[Any]] = {
    "s3_key": bindparam("made_key", type_=String),
    "cloudfront_url": bindparam("made_url", type_=String),
    "display_order": literal(0),
    "is_primary": true(),
}
_NEW = {**_FIRST, "book_id": BOOK_ID, "is_background_processed": true()}


def _write(cutout: UpdateBase) -> Update:
    """Return the statement that enters a cut-out, moves the other images and completes the job.

    It changes nothing if the images are not those that were locked.

    Args:
        cutout: Statement that enters the row of the cut-out.
    """
    entered = cutout.returning(IMAGES.c.id).cte("cutout")
    completed = {
        "status": "completed",
        "processed_image_id": select(entered.c.id).scalar_subquery(),
        "model_used": bindparam("made_by", type_=String),
        "failure_reason": None,
        "updated_at": func.now(),
        "completed_at": func.now(),
    }
    of_cutout = update(JOBS).where(JOBS.c.id == JOB_ID, select(entered.c.id).exists())
    return of_cutout.values(completed).add_cte(_OTHERS)


_ENTER = _write(insert(IMAGES).from_select(list(_NEW), select(*_NEW.values()).where(_IS_SAME)))
_ENTER_AGAIN = _write(
    update(IMAGES)
    .where(IMAGES.c.id == bindparam("present", type_=Integer), _IS_SAME)
    .values(_FIRST)
)
"""The same for an image that has a cut-out already, whose row it changes."""


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
        RowsChanged: An image of the book was inserted; begin again.
    """
    ids = ids_of(job)
    row, images = _lock(connection, ids)
    if row is not None and row.processed_image_id not in {None, *(image.id for image in images)}:
        # Another delivery has entered its cut-out since the statement began, and waits no more. A
        # statement that begins now finds the row.
        row, images = _lock(connection, ids)
    if row is None or row.status is None:
        return Missing(book_exists=row is not None)
    completed = row.status == "completed"
    if completed:
        s3_key = completed_job(row, images, None).s3_key
        if s3_key is None or s3_key == cutout.s3_key or not again:
            return Entered(s3_key)
    if not any(image.id == cutout.source_id for image in images):
        raise SourceDeleted(
            f"image {cutout.source_id} of book {job.book_id} was deleted while it was cut out"
        )
    present = find_cutout(images, job.book_id, cutout.source_id)
    present_id = row.processed_image_id if completed else None
    if present is not None:
        present_id = present.id
    values = {
        **ids,
        "locked": len(images),
        "made_key": cutout.s3_key,
        "made_url": cutout.cloudfront_url,
        "made_by": cutout.model_used,
        **_moves(images, present_id, cutout.source_id),
    }
    if present_id is None:
        written = connection.execute(_ENTER, values)
    else:
        written = connection.execute(_ENTER_AGAIN, {**values, "present": present_id})
    if written.rowcount == 0:
        raise RowsChanged(f"the images of book {job.book_id} changed while they were locked")
    return Entered(cutout.s3_key)


def _lock(connection: Connection, ids: dict[str, Any]) -> tuple[Row[Any] | None, list[BookImage]]:
    found = connection.execute(_LOCK, ids).all()
    images = [BookImage(*image) for _, _, _, *image in found if image[0] is not None]
    return next(iter(found), None), images


def _moves(
    images: Sequence[BookImage], cutout_id: int | None, source_id: int
) -> dict[str, list[int]]:
    """Return the images that do not have their place after the cut-out, and those places.

    Args:
        images: Images with the positions that they have.
        cutout_id: Id of the row of the cut-out. None if it is inserted.
        source_id: Id of the image that was cut out.
    """
    places = {
        image.id: position
        for position, image in enumerate(arrange(images, cutout_id, source_id), start=1)
        if image.is_primary or image.display_order != position
    }
    return {"moved": list(places), "positions": list(places.values())}
