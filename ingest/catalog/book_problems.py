"""What is wrong with the rows of one book, as a pure function of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ingest.catalog.rules import FOLDER, BookImage, in_order, source_of_cutout

KINDS = {
    "no_primary": "The book has images, and none of them is primary.",
    "several_primaries": "Several images of the book are primary.",
    "order": "The positions of the book's images are not 0, 1, 2 and so on.",
    "shared_key": "Several rows name one object.",
    "duplicate": "One image has several cut-outs by Foreedge.",
    "old_duplicate": "The book has several cut-outs whose names do not say their image.",
    "prefixed_key": "The key in the table begins with books/, which readers put there again.",
    "cutout_missing": "The object of a cut-out does not exist.",
    "thumbnail_missing": "The thumbnail of a cut-out does not exist.",
    "wrong_type": "The object of a cut-out or of its thumbnail has another media type.",
    "job_without_end": "A job has not ended for longer than a job can take.",
    "job_given_up": "A job was never put on the queue, and nothing tries again.",
    "leftover": "An object belongs to no row, and no job is at work on its book.",
}
"""The kinds of problems, and what each of them says."""


@dataclass(frozen=True, slots=True)
class CollectionProblem:
    """One thing in the tables or in the bucket that is not as it should be."""

    kind: str
    """One of ``KINDS``."""
    detail: str
    """What was found."""
    book_id: int | None = None
    """Id of the book. None if the name of an object does not say it."""
    image_id: int | None = None
    """Id of the row in ``book_images``, if it is about one."""
    job_id: str | None = None
    """Id of the job, if it is about one."""
    key: str | None = None
    """Key of the object in the bucket, if it is about one."""


def problems_of_book(book_id: int, images: Sequence[BookImage]) -> Iterator[CollectionProblem]:
    """Yield what is wrong with the rows of a book.

    Args:
        book_id: Id of the book.
        images: All of its images, cut-outs included.
    """
    if not images:
        return
    ordered = in_order(images)
    primaries = [image.id for image in ordered if image.is_primary]
    if not primaries:
        yield CollectionProblem("no_primary", f"none of {len(images)} images", book_id)
    elif len(primaries) > 1:
        yield CollectionProblem("several_primaries", f"images {_listed(primaries)}", book_id)
    positions = [image.display_order for image in ordered]
    if positions != list(range(len(images))):
        yield CollectionProblem("order", f"positions {_listed(positions)}", book_id)
    yield from _problems_of_keys(book_id, ordered)
    yield from _duplicates(book_id, ordered)


def _problems_of_keys(book_id: int, images: Sequence[BookImage]) -> Iterator[CollectionProblem]:
    for key, number in Counter(image.s3_key for image in images).items():
        if number > 1:
            shared = [image.id for image in images if image.s3_key == key]
            yield CollectionProblem("shared_key", f"images {_listed(shared)}", book_id, key=key)
    for image in images:
        if image.s3_key.startswith(FOLDER):
            yield CollectionProblem("prefixed_key", image.s3_key, book_id, image.id)


def _duplicates(book_id: int, images: Sequence[BookImage]) -> Iterator[CollectionProblem]:
    of_source: dict[int | None, list[int]] = {}
    for image in images:
        if image.is_background_processed:
            source_id = source_of_cutout(image.s3_key.removeprefix(FOLDER), book_id)
            of_source.setdefault(source_id, []).append(image.id)
    for source_id, cutouts in of_source.items():
        if len(cutouts) < 2:
            continue
        if source_id is None:
            yield CollectionProblem("old_duplicate", f"cut-outs {_listed(cutouts)}", book_id)
        else:
            detail = f"cut-outs {_listed(cutouts)} of image {source_id}"
            yield CollectionProblem("duplicate", detail, book_id)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
