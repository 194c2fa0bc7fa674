"""Two hundred books of every kind, each compared with what the application's table says.

The checker is written from docs/catalog.md. It shares no code with ``ingest``.
"""

from __future__ import annotations

import random
from functools import partial

from ingest.catalog import rows
from ingest.catalog.database import Database
from ingest.catalog.finish import CutoutRow, Entered, finish
from ingest.catalog.rows import Claimed
from tests.catalog.collection import Collection, Image, Record

BOOKS = 200
KINDS = ("title_page", "binding", "cover", "spine", "detail", None)
KEYS = ("{book}_%032x.jpg", "{book}/image_%02d.webp", "books/{book}/image_%02d.png", "{book}_%d")


def a_book(chance: random.Random) -> list[Image]:
    """Return the images of a book of any kind: 1 to 40, none or two primaries, old cut-outs."""
    count = chance.choice([1, 1, 2, 3, 5, 8, 40])
    only_cutouts = chance.random() < 0.1
    return [
        Image(
            chance.choice(KEYS) % n,
            chance.choice(KINDS),
            primary=chance.random() < chance.choice([0, 0.3]),
            processed=only_cutouts or chance.random() < 0.2,
            # Positions with gaps, and some twice.
            order=chance.randrange(2 * count),
        )
        for n in range(count)
    ]


def expected_source(images: list[Record], asked: int | None) -> int:
    """Return the image that the document says is cut out, by looking for each rule in turn."""
    images = sorted(images, key=lambda row: (row["display_order"], row["id"]))
    originals = [row for row in images if not row["is_background_processed"]]
    if not originals:
        return int(next((row["id"] for row in images if row["id"] == asked), images[0]["id"]))
    rules = [
        *([row for row in originals if row["image_type"] == kind] for kind in KINDS[:4]),
        [row for row in originals if row["is_primary"]],
        [row for row in originals if row["id"] == asked],
        originals,
    ]
    found: int = next(rule[0]["id"] for rule in rules if rule)
    return found


def test_two_hundred_books_are_what_the_document_says(
    database: Database, collection: Collection
) -> None:
    chance = random.Random(7)
    for _ in range(BOOKS):
        book, ids = collection.add_book(*a_book(chance))
        asked = chance.choice([*ids, None])
        job = collection.queue(book, asked)
        before = collection.images(book)
        found = database.run(partial(rows.claim, job=job))
        assert isinstance(found, Claimed)
        source = expected_source(before, asked)
        assert found.source.id == source
        cutout = CutoutRow(source, f"{book}_processed_{source}_f.png", None, "u2net-alpha")
        entered = database.run(partial(finish, job=job, cutout=cutout))
        assert entered == Entered(cutout.s3_key)
        made, *others = collection.order(book)
        kept = [row["id"] for row in before if row["id"] != source]
        assert others == [*kept, source]
        unchanged = ("s3_key", "image_type", "is_background_processed", "caption")
        for row in collection.images(book):
            if row["id"] != made:
                [old] = [each for each in before if each["id"] == row["id"]]
                assert {name: row[name] for name in unchanged} == {
                    name: old[name] for name in unchanged
                }
    states = collection.rows("SELECT DISTINCT status FROM image_processing_jobs")
    assert states == [{"status": "completed"}]
