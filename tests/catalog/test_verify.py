"""``foreedge catalog verify``: a sound collection, and each thing that can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingest.catalog.book_problems import KINDS, CollectionProblem
from ingest.catalog.database import Database
from ingest.catalog.verify import CollectionCheck, Patience
from ingest.cli.main import app
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectInfo
from serve_app.storage.s3 import S3Store
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, Image
from tests.catalog.commands import settings_file
from tests.catalog.stand_in_pipeline import jpeg

OLD = "{book}_processed_0f0f0f0f-1111-4222-8333-444444444444.png"


class Shelf:
    """One sound book with a cut-out, whose things a test changes."""

    def __init__(self, bench: Bench, collection: Collection) -> None:
        self.bench, self.collection = bench, collection
        self.book, ids = collection.add_book(
            Image(OLD, None, primary=True, processed=True),
            Image("{book}_aa.jpg"),
            Image("{book}/image_01.webp"),
        )
        self.cutout, self.image, self.other = ids
        self.s3_key = collection.images(self.book)[0]["s3_key"]
        bench.upload(self.book)
        self.put(f"books/{self.s3_key}", "image/png")
        self.put(f"books/thumb_{self.s3_key}", "image/jpeg")
        collection.queue(self.book, self.image, "completed")

    def put(self, key: str, media_type: str = "image/jpeg") -> None:
        self.bench.s3.put_object(
            Bucket=self.bench.bucket, Key=key, Body=jpeg(), ContentType=media_type
        )

    def remove(self, key: str) -> None:
        self.bench.s3.delete_object(Bucket=self.bench.bucket, Key=key)

    def execute(self, query: str, *parameters: object) -> None:
        self.collection.execute(query, *parameters)

    def add(self, key: str, **image: Any) -> int:
        """Add an image behind the others, with its objects."""
        position = len(self.collection.images(self.book))
        added = self.collection.add_image(self.book, Image(key, **image), position)
        real = key.replace("{book}", str(self.book))
        media_type = "image/png" if image.get("processed") else "image/jpeg"
        self.put(f"books/{real.removeprefix('books/')}", media_type)
        self.put(f"books/thumb_{real}")
        return added

    def queue(self, status: str, age: str) -> None:
        job = self.collection.queue(self.book, self.other, status)
        self.execute(
            "UPDATE image_processing_jobs SET created_at = now() - %s::interval,"
            " updated_at = now() - %s::interval WHERE id = %s",
            age,
            age,
            job.job_id,
        )

    def problems(self, book_ids: Sequence[int] | None = None) -> list[CollectionProblem]:
        return list(self.check().problems(book_ids))

    def check(self) -> CollectionCheck:
        return CollectionCheck(
            self.database, self.bench.store, self.bench.bucket, Patience(600, 86_400)
        )

    database: Database


@pytest.fixture
def shelf(bench: Bench, collection: Collection, database: Database) -> Shelf:
    made = Shelf(bench, collection)
    made.database = database
    return made


def test_a_sound_collection_has_no_problem(shelf: Shelf) -> None:
    shelf.queue("pending", "2 minutes")
    check = shelf.check()
    assert list(check.problems()) == []
    looked = check.looked
    assert (looked.books, looked.images, looked.cutouts, looked.objects) == (1, 3, 1, 6)


Change = Callable[[Shelf], object]
UPDATE = "UPDATE book_images SET"
CASES: dict[str, tuple[str, str, Change]] = {
    "no primary": ("no_primary", "3 images", lambda s: s.execute(f"{UPDATE} is_primary = false")),
    "two primaries": (
        "several_primaries",
        "images",
        lambda s: s.execute(f"{UPDATE} is_primary = true WHERE id <= %s", s.image),
    ),
    "a gap": (
        "order",
        "0, 1, 5",
        lambda s: s.execute(f"{UPDATE} display_order = 5 WHERE id = %s", s.other),
    ),
    "a position twice": (
        "order",
        "0, 1, 1",
        lambda s: s.execute(f"{UPDATE} display_order = 1 WHERE id = %s", s.other),
    ),
    "one object of two rows": ("shared_key", "images", lambda s: s.add("{book}_aa.jpg")),
    "a second copy of the old worker": (
        "old_duplicate",
        "cut-outs",
        lambda s: s.add(OLD.replace("0f0f", "1f1f"), processed=True),
    ),
    "a key with the prefix": (
        "prefixed_key",
        "books/",
        lambda s: s.add("books/{book}/image_09.jpg"),
    ),
    "no object": ("cutout_missing", ".png", lambda s: s.remove(f"books/{s.s3_key}")),
    "no thumbnail": (
        "thumbnail_missing",
        "thumb_",
        lambda s: s.remove(f"books/thumb_{s.s3_key}"),
    ),
    "a page in place of a cut-out": (
        "wrong_type",
        "text/html, and not image/png",
        lambda s: s.put(f"books/{s.s3_key}", "text/html"),
    ),
    "a thumbnail as PNG": (
        "wrong_type",
        "image/png, and not image/jpeg",
        lambda s: s.put(f"books/thumb_{s.s3_key}", "image/png"),
    ),
    "a dead worker": ("job_without_end", "processing", lambda s: s.queue("processing", "1 hour")),
    "a lost message": ("job_without_end", "pending", lambda s: s.queue("pending", "2 days")),
    "a message never sent": (
        "job_without_end",
        "queue_failed",
        lambda s: s.queue("queue_failed", "2 days"),
    ),
    "three outages": (
        "job_given_up",
        "permanently_failed",
        lambda s: s.queue("permanently_failed", "1 minute"),
    ),
    "a cut-out that no row names": (
        "leftover",
        "_processed_",
        lambda s: s.put(f"books/{s.book}_processed_9.png"),
    ),
    "a thumbnail that no row names": (
        "leftover",
        "thumb_",
        lambda s: s.put(f"books/thumb_{s.book}/old.jpg"),
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_each_thing_that_is_wrong_is_found(what: str, shelf: Shelf) -> None:
    kind, detail, change = CASES[what]
    change(shelf)
    for chosen in (None, [shelf.book]):
        [found] = shelf.problems(chosen)
        assert (found.kind, found.book_id) == (kind, shelf.book)
        assert detail in found.detail


def test_two_cut_outs_of_one_image_are_duplicates(shelf: Shelf) -> None:
    for fingerprint in ("a", "b"):
        shelf.add(f"{{book}}_processed_{shelf.image}_{fingerprint}.png", processed=True)
    [found] = shelf.problems()
    assert found.kind == "duplicate"
    assert found.detail.endswith(f"of image {shelf.image}")


def test_every_kind_is_tested() -> None:
    assert {kind for kind, _, _ in CASES.values()} | {"duplicate"} == KINDS.keys()


def test_objects_of_a_job_at_work_are_no_leftovers(shelf: Shelf) -> None:
    shelf.put(f"books/{shelf.book}_processed_9.png")
    shelf.queue("processing", "1 minute")
    assert shelf.problems() == []


def test_rows_of_early_imports_name_their_objects(shelf: Shelf) -> None:
    """The worker and the application compute different keys, and neither is a leftover."""
    shelf.add("books/{book}/image_09.jpg")
    for key in (f"books/books/{shelf.book}/image_09.jpg", f"books/thumb_{shelf.book}/image_09.jpg"):
        shelf.put(key)
    assert [each.kind for each in shelf.problems()] == ["prefixed_key"]


class Meddling(S3Store):
    """The store, with a user who deletes a cut-out after its row was read."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf.bench.s3)
        self.shelf = shelf

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        shelf = self.shelf
        shelf.execute("DELETE FROM book_images WHERE id = %s", shelf.cutout)
        shelf.execute(f"{UPDATE} display_order = display_order - 1, is_primary = id = 2")
        shelf.remove(f"books/{shelf.s3_key}")
        shelf.remove(f"books/thumb_{shelf.s3_key}")
        return super().head(bucket, key, version_id)


def test_a_cut_out_that_is_deleted_meanwhile_is_no_problem(shelf: Shelf) -> None:
    bucket, patience = shelf.bench.bucket, Patience(600, 86_400)
    check = CollectionCheck(shelf.database, Meddling(shelf), bucket, patience)
    assert list(check.problems([shelf.book])) == []
    assert check.looked.cutouts == 1


def test_the_command(shelf: Shelf, tmp_path: Path) -> None:
    settings = ["--config", settings_file(shelf.bench, tmp_path)]
    run = CliRunner()
    answer = run.invoke(app, ["catalog", "verify", "--json", *settings])
    assert answer.exit_code == 0, (answer.output, answer.exception)
    assert json.loads(answer.stdout) == {
        "sound": True,
        "books": 1,
        "images": 3,
        "cutouts": 1,
        "objects": 6,
        "problems": {},
    }
    shelf.remove(f"books/{shelf.s3_key}")
    answer = run.invoke(app, ["catalog", "verify", "--json", "--books", "1", *settings])
    assert answer.exit_code == 1
    problem, totals = map(json.loads, answer.stdout.splitlines())
    key = f"books/{shelf.s3_key}"
    assert problem == {
        "kind": "cutout_missing",
        "detail": f"s3://{shelf.bench.bucket}/{key}",
        "book_id": shelf.book,
        "image_id": shelf.cutout,
        "key": key,
    }
    assert totals["problems"] == {"cutout_missing": 1}
    answer = run.invoke(app, ["catalog", "verify", "--ignore", "cutout_missing", *settings])
    assert answer.exit_code == 0
    assert answer.stdout.splitlines() == [
        "1 book, 3 images, 1 cut-out, 5 objects looked at. cutout_missing 1"
    ]
    answer = run.invoke(app, ["catalog", "verify", *settings])
    assert answer.stdout.startswith("cutout_missing     book 1, image 1: s3://")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--books", "1,x"], "not a list of ids"),
        (["--books", "7"], "no book 7"),
        (["--ignore", "nothing"], "choose from no_primary"),
    ],
)
def test_wrong_options_are_refused(
    words: list[str], expected: str, shelf: Shelf, tmp_path: Path
) -> None:
    settings = ["--config", settings_file(shelf.bench, tmp_path)]
    answer = CliRunner().invoke(app, ["catalog", "verify", *words, *settings])
    assert isinstance(answer.exception, InvalidConfig)
    assert expected in str(answer.exception)


def test_thousands_of_books_are_read_in_pages(shelf: Shelf) -> None:
    """Nothing is lost between pages, and a snapshot is held for none of them."""
    shelf.execute("INSERT INTO books SELECT FROM generate_series(1, 1000)")
    shelf.execute(
        "INSERT INTO book_images (book_id, s3_key, display_order, is_primary)"
        " SELECT id, id || '_a.jpg', 0, mod(id, 3) > 0 FROM books WHERE id > 1"
    )
    check = shelf.check()
    found = [each.book_id for each in check.problems() if each.kind == "no_primary"]
    assert found == list(range(3, 1002, 3))
    assert check.looked.books == 1001
