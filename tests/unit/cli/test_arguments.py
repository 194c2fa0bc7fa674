"""The images that a source argument names, and the places of results and uploads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ingest.cli.arguments import SourceOptions, resolve_source
from ingest.sources.base import Entry, count_skipped, kind_of
from ingest.sources.folder import FileUpload, missing_uploads, upload_files
from serve_app.config import LedgerConfig, QueueConfig
from serve_app.contracts.job import Output
from serve_app.errors import InvalidConfig, StorageUnavailable
from serve_app.storage.local import LocalStore

LEDGER = LedgerConfig(bucket="b")
QUEUE = QueueConfig(url="http://localhost/queue")
OUTPUT = Output(bucket="b")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def put(store: LocalStore, *keys: str, bucket: str = "b") -> None:
    for key in keys:
        store.put(bucket, key, key.encode(), "image/jpeg")


def keys_of(entries: Iterable[Entry]) -> list[str]:
    return [entry.key for entry in entries]


def test_a_prefix_holds_images_and_nothing_of_ours(store: LocalStore) -> None:
    put(store, "a.JPG", "sub/b.webp", "notes.txt", "cutouts/a/1.png", "_foreedge/runs/r/x.png")

    found = resolve_source("s3://b/", SourceOptions(), "r1", store, LEDGER, QUEUE)

    assert keys_of(found.source.entries()) == ["a.JPG", "sub/b.webp"]
    assert found.source.skipped == {".txt": 1}
    assert all(entry.etag for entry in found.source.entries())
    assert found.output == OUTPUT


def test_a_prefix_holds_no_results_of_other_runs(store: LocalStore) -> None:
    own = "shelf/in/a/0123456789abcdef0123"
    put(store, "in/a.jpg", f"{own}.png", f"{own}_thumb.jpg", "old/runs/r/run.json")
    places = SourceOptions(output="s3://elsewhere/")

    found = resolve_source("s3://b/", places, "r1", store, LEDGER, QUEUE)

    assert keys_of(found.source.entries()) == ["in/a.jpg"]


@pytest.mark.parametrize("all_names", [False, True])
def test_names_without_an_extension(store: LocalStore, tmp_path: Path, all_names: bool) -> None:
    names = ["in/4711", "in/a.jfif", "in/b.jpe", "in/c.AVIF"]
    put(store, *names, "in/.hidden/run", "in/runs/r/results/x.jsonl.gz")
    expected = ["in/.hidden/run", *names] if all_names else names[1:]
    options = SourceOptions(all_names=all_names)

    prefix = resolve_source("s3://b/in/", options, "r1", store, LEDGER, QUEUE)
    assert keys_of(prefix.source.entries()) == expected

    folder = str(tmp_path / "store" / "b" / "in")
    uploads = resolve_source(folder, options, "r1", store, LEDGER, QUEUE).uploads
    assert {item.key.removeprefix("uploads/r1/") for item in uploads} >= {
        key.removeprefix("in/") for key in expected
    }
    upload_files(store, uploads)


def test_another_bucket_s_results_folder_is_a_source(store: LocalStore) -> None:
    put(store, "cutouts/a.png", bucket="other")

    found = resolve_source(
        "s3://other/", SourceOptions(output="s3://b/cutouts"), "r1", store, LEDGER, QUEUE
    )

    assert keys_of(found.source.entries()) == ["cutouts/a.png"]


@pytest.mark.parametrize("output", ["s3://b", "s3://b/in"])
def test_results_do_not_land_among_the_sources(store: LocalStore, output: str) -> None:
    put(store, "in/a.jpg")

    with pytest.raises(InvalidConfig, match="Choose another --output"):
        resolve_source("s3://b/in/", SourceOptions(output=output), "r1", store, LEDGER, QUEUE)


def test_several_buckets_need_an_output(store: LocalStore, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("b,1.jpg\nc,1.jpg\n")

    with pytest.raises(InvalidConfig, match="several buckets"):
        resolve_source(str(path), SourceOptions(), "r1", store, LEDGER, QUEUE)
    found = resolve_source(str(path), SourceOptions(output="s3://o/p"), "r1", store, LEDGER, QUEUE)
    assert found.output == Output(bucket="o", prefix="p/")


def test_a_folder_is_uploaded_without_what_lies_outside(store: LocalStore, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    for path in ("photographs/1.jpg", "photographs/sub/2.png", "secret/s.jpg"):
        (tmp_path / path).write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    (folder / "out.jpg").symlink_to(tmp_path / "secret" / "s.jpg")
    (folder / "again.jpg").symlink_to(folder / "1.jpg")
    (folder / "linked").symlink_to(tmp_path / "secret")

    found = resolve_source(str(folder), SourceOptions(), "r1", store, LEDGER, QUEUE)
    upload_files(store, found.uploads)

    expected = ["uploads/r1/1.jpg", "uploads/r1/again.jpg", "uploads/r1/sub/2.png"]
    assert keys_of(found.source.entries()) == expected
    assert [item.key for item in store.list("b", "")] == expected
    outside = {"linked to outside the folder": 1, "linked folder": 1}
    assert found.source.skipped == {".txt": 1, **outside}


def test_unreadable_files_are_named_and_all_others_uploaded(
    store: LocalStore, tmp_path: Path
) -> None:
    files = [FileUpload(tmp_path / f"{i}.jpg", "b", f"{i}.jpg") for i in range(9)]
    for file in files[5:]:
        file.path.write_bytes(b"x")
    steps: list[int] = []

    with pytest.raises(
        InvalidConfig, match=r"5 of 9 files cannot.*/0\.jpg: No such file.*/2\.jpg.*and 2 more"
    ):
        upload_files(store, files, steps.append)

    assert list(store.keys("b", "")) == [file.key for file in files[5:]]
    assert sum(steps) == 4


def test_only_what_is_not_there_is_uploaded_again(store: LocalStore, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("1", "2", "3", "4"):
        (folder / f"{name}.jpg").write_bytes(b"old")
    files = [FileUpload(path, "b", f"up/{path.name}") for path in sorted(folder.iterdir())]
    upload_files(store, files[:3])
    put(store, "up/5.jpg", "other.jpg")
    # A larger file, and one of the same size that was changed after its upload.
    files[1].path.write_bytes(b"larger")
    files[2].path.write_bytes(b"new")
    [third] = store.list("b", "up/3.jpg")
    assert third.written_at is not None
    os.utime(files[2].path, (0, third.written_at.timestamp() + 5))

    assert missing_uploads(store, files, "up/") == files[1:]
    upload_files(store, files[1:])
    assert missing_uploads(store, files, "up/") == files[2:3]
    # A file that is gone is no copy of anything, and the upload says so.
    files[0].path.unlink()
    assert files[0] in missing_uploads(store, files, "up/")


def test_a_store_that_does_not_answer_ends_the_listing() -> None:
    class DeadStore(LocalStore):
        def list(self, bucket: str, prefix: str, after: str | None = None) -> Any:
            raise StorageUnavailable("down")

    found = resolve_source("s3://b/", SourceOptions(), "r1", DeadStore(Path()), LEDGER, QUEUE)
    with pytest.raises(StorageUnavailable):
        list(found.source.entries())


def test_the_kinds_of_skipped_names_are_bounded() -> None:
    skipped: Counter[str] = Counter()
    for number in range(5_000):
        count_skipped(skipped, kind_of(f"in/cache.{number:x}f"))
    assert len(skipped) == 1_001
    assert skipped.total() == 5_000
    assert skipped["of further kinds"] == 4_000
