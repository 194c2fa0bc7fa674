"""Two hundred books of every kind, each compared with what the application's table says.

The checker is written from docs/catalog.md. It shares no code with ``ingest``.
"""

from __future__ import annotations

import random
import re

from serve_app.contracts.job import CatalogJob
from tests.catalog.collection import Collection, Image, Record
from tests.catalog.quick_bench import QuickBench

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


async def test_two_hundred_books_are_what_the_document_says(quick_bench: QuickBench) -> None:
    chance = random.Random(7)
    collection = quick_bench.collection
    wanted: list[tuple[CatalogJob, int, list[Record]]] = []
    for _ in range(BOOKS):
        book, ids = collection.add_book(*a_book(chance))
        asked = chance.choice([*ids, None])
        before = collection.images(book)
        wanted.append((collection.queue(book, asked), expected_source(before, asked), before))
        quick_bench.upload(book)
    uploaded = quick_bench.objects()
    await quick_bench.serve(*(job for job, _, _ in wanted))
    made = [check_book(collection, job, source, before) for job, source, before in wanted]
    assert quick_bench.objects() - uploaded == {
        f"books/{prefix}{key}" for key in made for prefix in ("", "thumb_")
    }
    assert uploaded <= quick_bench.objects()
    assert quick_bench.dead_letters() == []


def check_book(collection: Collection, job: CatalogJob, source: int, before: list[Record]) -> str:
    """Check the rows of a book whose job is done, and return the key of its cut-out."""
    made, *others = collection.order(job.book_id)
    kept = [row["id"] for row in before if row["id"] != source]
    assert others == [*kept, source]
    row = collection.job(job)
    assert (row["status"], row["processed_image_id"]) == ("completed", made)
    assert (row["failure_reason"], row["attempt_count"]) == (None, 1)
    unchanged = ("s3_key", "image_type", "is_background_processed", "caption")
    new, *images = collection.images(job.book_id)
    for image in images:
        [old] = [each for each in before if each["id"] == image["id"]]
        assert {name: image[name] for name in unchanged} == {name: old[name] for name in unchanged}
    assert new["is_background_processed"]
    assert new["image_type"] is new["caption"] is new["content_hash"] is None
    assert re.fullmatch(rf"{job.book_id}_processed_{source}_[0-9a-f]+\.png", new["s3_key"])
    assert new["cloudfront_url"] == f"https://cdn.example/books/{new['s3_key']}"
    return str(new["s3_key"])
