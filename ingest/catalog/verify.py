"""Verification of a whole collection: its rows, its jobs, and the objects in its bucket.

Rows are read in pages and the bucket as a listing, so that a collection of any size fits. What
changes meanwhile is looked at once more before it counts as a problem.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ingest.catalog.book_problems import CollectionProblem, problems_of_book
from ingest.catalog.database import Database
from ingest.catalog.reading import BookImages, OpenJob, books_after, books_of, busy_books, open_jobs
from ingest.catalog.rules import FOLDER, BookImage, object_key
from ingest.sources.distinct import Distinct
from ingest.units import format_duration
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectStore

T = TypeVar("T")

_BOOKS_AT_ONCE = 200
_LEFTOVERS_AT_ONCE = 500
LOOKUPS = 16
"""Number of objects that are looked up at a time."""
_LARGEST_ID = 2**31 - 1
_BOOK_OF_KEY = re.compile(rf"{FOLDER}(?:thumb_)?(?:{FOLDER})?(\d{{1,10}})[_/]")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a job may take before it counts as one without an end."""

    taken_s: float
    """Time, in seconds, after which no consumer works on a job that was taken."""
    waiting_s: float
    """Time, in seconds, after which a job that waits counts as lost."""


@dataclass(slots=True)
class Looked:
    """How much was looked at."""

    books: int = 0
    """Number of books."""
    images: int = 0
    """Number of rows of images, cut-outs included."""
    cutouts: int = 0
    """Number of rows of cut-outs."""
    objects: int = 0
    """Number of objects in the listing of the bucket."""
    problems: Counter[str] = field(default_factory=Counter)
    """Number of problems of each kind."""


class CollectionCheck:
    """A look at a collection, which changes nothing."""

    def __init__(
        self, database: Database, store: ObjectStore, bucket: str, patience: Patience
    ) -> None:
        """Read nothing yet.

        Args:
            database: Database of the application.
            store: Object store of the images.
            bucket: Bucket of the images.
            patience: How long a job may take.
        """
        self._database = database
        self._store = store
        self._bucket = bucket
        self._patience = patience
        self.looked = Looked()
        """How much was looked at up to now."""

    def problems(self, book_ids: Sequence[int] | None = None) -> Iterator[CollectionProblem]:
        """Yield what is wrong, as it is found. Blocks.

        Args:
            book_ids: Ids of the books to look at. None for all books and the whole bucket.

        Raises:
            InvalidConfig: One of the books does not exist.
            DatabaseUnavailable: The database does not answer.
            ForeedgeError: The store refuses or does not answer.
        """
        for problem in self._problems(book_ids):
            self.looked.problems[problem.kind] += 1
            yield problem

    def _problems(self, book_ids: Sequence[int] | None) -> Iterator[CollectionProblem]:
        with closing(Distinct()) as expected, ThreadPoolExecutor(LOOKUPS, "objects") as pool:
            for page in self._pages(book_ids):
                for book_id, images in page.items():
                    yield from problems_of_book(book_id, images)
                yield from self._problems_of_objects(pool, page)
                self._note(page, expected)
            yield from self._problems_of_jobs(book_ids)
            yield from self._leftovers(book_ids, expected)

    def _pages(self, book_ids: Sequence[int] | None) -> Iterator[BookImages]:
        if book_ids is not None:
            for some in _batches(sorted(set(book_ids)), _BOOKS_AT_ONCE):
                page = self._database.run(partial(books_of, book_ids=some))
                if missing := [book_id for book_id in some if book_id not in page]:
                    raise InvalidConfig(f"the collection has no book {missing[0]}")
                yield page
            return
        last = 0
        while page := self._database.run(partial(books_after, after=last, most=_BOOKS_AT_ONCE)):
            yield page
            last = max(page)

    def _note(self, page: BookImages, expected: Distinct) -> None:
        """Count the rows of a page, and remember the objects that they name."""
        self.looked.books += len(page)
        for images in page.values():
            self.looked.images += len(images)
            self.looked.cutouts += sum(image.is_background_processed for image in images)
            for image in images:
                for key in named_objects(image.s3_key):
                    expected.add(key)

    def _problems_of_objects(
        self, pool: ThreadPoolExecutor, page: BookImages
    ) -> Iterator[CollectionProblem]:
        """Yield what is wrong with the objects of the cut-outs of a page."""
        cutouts = [
            (book_id, image)
            for book_id, images in page.items()
            for image in images
            if image.is_background_processed
        ]
        found = pool.map(lambda each: list(self._problems_of_cutout(*each)), cutouts)
        wrong = [
            (each, problems) for each, problems in zip(cutouts, found, strict=True) if problems
        ]
        if not wrong:
            return
        # A cut-out may be deleted or get another name after its row was read.
        again = self._database.run(
            partial(books_of, book_ids=[book_id for (book_id, _), _ in wrong])
        )
        for (book_id, image), problems in wrong:
            now = again.get(book_id, [])
            if any((row.id, row.s3_key) == (image.id, image.s3_key) for row in now):
                yield from problems

    def _problems_of_cutout(self, book_id: int, image: BookImage) -> Iterator[CollectionProblem]:
        objects = (
            ("cutout_missing", object_key(image.s3_key), "image/png"),
            ("thumbnail_missing", thumbnail_of(image.s3_key), "image/jpeg"),
        )
        for missing, key, media_type in objects:
            url = f"s3://{self._bucket}/{key}"
            info = self._store.head(self._bucket, key)
            if info is None:
                yield CollectionProblem(missing, url, book_id, image.id, key=key)
            elif info.media_type != media_type:
                detail = f"{url} is {info.media_type}, and not {media_type}"
                yield CollectionProblem("wrong_type", detail, book_id, image.id, key=key)

    def _problems_of_jobs(self, book_ids: Sequence[int] | None) -> Iterator[CollectionProblem]:
        patience = self._patience
        for job in open_jobs(self._database, patience.taken_s, patience.waiting_s, book_ids):
            given_up = job.status == "permanently_failed"
            kind = "job_given_up" if given_up else "job_without_end"
            yield CollectionProblem(kind, _described(job), job.book_id, job_id=job.job_id)

    def _leftovers(
        self, book_ids: Sequence[int] | None, expected: Distinct
    ) -> Iterator[CollectionProblem]:
        unknown = (key for key in self._listed(book_ids) if expected.add(key))
        for some in _batches(unknown, _LEFTOVERS_AT_ONCE):
            yield from self._unclaimed(some)

    def _listed(self, book_ids: Sequence[int] | None) -> Iterator[str]:
        prefixes: Iterable[str] = [FOLDER]
        if book_ids is not None:
            prefixes = (
                f"{FOLDER}{kind}{book_id}{end}"
                for book_id in sorted(set(book_ids))
                for kind in ("", "thumb_")
                for end in ("_", "/")
            )
        for prefix in prefixes:
            for key in self._store.keys(self._bucket, prefix):
                if not key.endswith("/"):
                    self.looked.objects += 1
                    yield key

    def _unclaimed(self, keys: Sequence[str]) -> Iterator[CollectionProblem]:
        """Yield the objects that still belong to nothing, now that they are looked at again.

        The objects of a job are put before its row is committed, and those of a job that died are
        used by its next delivery.
        """
        book_of = {key: _book_of(key) for key in keys}
        books = sorted({book_id for book_id in book_of.values() if book_id is not None})
        # The jobs come first: one that ends between the two reads has its row in the second.
        busy = self._database.run(partial(busy_books, book_ids=books))
        present = self._database.run(partial(books_of, book_ids=books))
        named = {
            key
            for images in present.values()
            for image in images
            for key in named_objects(image.s3_key)
        }
        for key, book_id in book_of.items():
            if key not in named and book_id not in busy:
                url = f"s3://{self._bucket}/{key}"
                yield CollectionProblem("leftover", url, book_id, key=key)


def thumbnail_of(s3_key: str) -> str:
    """Return the key of the thumbnail of a row, which has the whole ``s3_key`` in its name."""
    return f"{FOLDER}thumb_{s3_key}"


def named_objects(s3_key: str) -> tuple[str, ...]:
    """Return the keys of all objects that a row names.

    The application itself puts ``books/`` in front of every key, also of one that has it already.
    """
    bare = s3_key.removeprefix(FOLDER)
    return (object_key(s3_key), FOLDER + s3_key, thumbnail_of(s3_key), thumbnail_of(bare))


def _book_of(key: str) -> int | None:
    """Return the id of the book that the name of an object begins with."""
    found = _BOOK_OF_KEY.match(key)
    return int(found[1]) if found is not None and int(found[1]) <= _LARGEST_ID else None


def _batches(items: Iterable[T], most: int) -> Iterator[list[T]]:
    stream = iter(items)
    while batch := list(itertools.islice(stream, most)):
        yield batch


def _described(job: OpenJob) -> str:
    if job.age_s is None:
        return f"{job.status} since an unknown time"
    return f"{job.status} for {format_duration(job.age_s)}"
