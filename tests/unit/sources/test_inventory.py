"""S3 Inventory reports: their images, and their errors."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ingest.cli.arguments import SourceOptions, resolve_source
from ingest.sources.base import Entry
from ingest.sources.inventory import InventorySource
from serve_app.config import LedgerConfig, QueueConfig
from serve_app.contracts.job import Output
from serve_app.errors import InvalidConfig, SourceNotFound
from serve_app.storage.local import LocalStore

WHERE = "s3://dest/inv/manifest.json"
SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, ETag"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def row(key: str, latest: str = "true", deleted: str = "false") -> str:
    return f'"src","{key}","v1","{latest}","{deleted}","12","e"'


def write(store: LocalStore, *files: list[str], **changes: Any) -> None:
    """Store an inventory whose manifest has some fields changed."""
    named = []
    for number, rows in enumerate(files):
        data = gzip.compress("".join(f"{row}\n" for row in rows).encode())
        key = f"inv/data/{number}.csv.gz"
        store.put("dest", key, data, "application/gzip")
        named.append({"key": key, "size": len(data), "MD5checksum": hashlib.md5(data).hexdigest()})
    content = {
        "sourceBucket": "src",
        "destinationBucket": "arn:aws:s3:::dest",
        "fileFormat": "CSV",
        "fileSchema": SCHEMA,
        "files": named,
    }
    text = json.dumps(content | changes)
    store.put("dest", "inv/manifest.json", text.encode(), "application/json")


def test_current_images_of_every_file(store: LocalStore) -> None:
    write(
        store,
        [row("a+b%2Bc%C3%BC.jpg"), row("folder/"), row("notes.txt"), row("old.jpg", "false")],
        [row("gone.png", "true", "true"), row("b.png"), row("cutouts/b/1.png")],
    )
    ledger, queue = LedgerConfig(bucket="l"), QueueConfig(url="q")

    found = resolve_source(WHERE, SourceOptions(), "r", store, ledger, queue)

    assert found.output == Output(bucket="src")
    assert list(found.source.entries()) == [Entry("src", "a b+cü.jpg"), Entry("src", "b.png")]
    assert found.source.skipped.total() == 1
    assert found.source.digest is not None


def test_a_local_copy_of_the_manifest(store: LocalStore, tmp_path: Path) -> None:
    write(store, [row("a.jpg")])
    copy = tmp_path / "manifest.json"
    copy.write_bytes(store.get("dest", "inv/manifest.json"))

    assert list(InventorySource(store, str(copy)).entries()) == [Entry("src", "a.jpg")]


def test_columns_that_an_inventory_may_lack(store: LocalStore) -> None:
    write(store, ['"src","a.jpg"'], fileSchema="Bucket, Key")

    assert list(InventorySource(store, WHERE).entries()) == [Entry("src", "a.jpg")]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fileFormat": "Parquet"}, "only inventories in CSV"),
        ({"fileSchema": "Bucket, Size"}, "no Key"),
        ({"files": [{"key": "k"}]}, "not an S3 Inventory manifest"),
        ({"destinationBucket": None}, "not an S3 Inventory manifest"),
    ],
)
def test_manifests_that_cannot_be_read(
    store: LocalStore, changes: dict[str, Any], expected: str
) -> None:
    write(store, [row("a.jpg")], **changes)

    with pytest.raises(InvalidConfig, match=expected):
        InventorySource(store, WHERE)


def test_what_is_no_manifest_at_all(store: LocalStore, tmp_path: Path) -> None:
    store.put("dest", "inv/manifest.json", b"[1]", "application/json")
    with pytest.raises(InvalidConfig, match="not an S3 Inventory manifest"):
        InventorySource(store, WHERE)
    with pytest.raises(SourceNotFound):
        InventorySource(store, "s3://dest/other/manifest.json")
    with pytest.raises(InvalidConfig, match="No such file"):
        InventorySource(store, str(tmp_path / "manifest.json"))


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov", "aws-iso-b"])
def test_inventories_of_every_partition(store: LocalStore, partition: str) -> None:
    write(store, [row("a.jpg")], destinationBucket=f"arn:{partition}:s3:::dest")

    assert list(InventorySource(store, WHERE).entries()) == [Entry("src", "a.jpg")]


def test_a_key_that_is_not_utf8_is_left_out_and_the_others_are_read(store: LocalStore) -> None:
    write(store, [row("a.jpg"), row("%FF.jpg"), row("%C3%BC.jpg"), row("%E9t%E9.jpg")])
    source = InventorySource(store, WHERE)

    for _ in range(2):
        assert list(source.entries()) == [Entry("src", "a.jpg"), Entry("src", "ü.jpg")]
        assert (source.undecodable, source.skipped.total()) == (2, 0)


def test_own_objects_are_no_images_under_any_prefix(store: LocalStore) -> None:
    own = "shelf/in/a/0123456789abcdef0123"
    write(store, [row("in/a.jpg"), row(f"{own}.png"), row(f"{own}_thumb.jpg")])

    assert list(InventorySource(store, WHERE).entries()) == [Entry("src", "in/a.jpg")]


def test_all_names_are_those_of_images_if_the_user_says_so(store: LocalStore) -> None:
    ledger_part = row("_foreedge/runs/r/jobs/000000.jsonl.gz")
    write(store, [row("a"), row("b.jfif"), row("c.jpe"), row("folder/"), ledger_part])

    found = resolve_source(
        WHERE, SourceOptions(all_names=True), "r", store, LedgerConfig(bucket="l"), None
    )

    assert [entry.key for entry in found.source.entries()] == ["a", "b.jfif", "c.jpe"]
    assert [e.key for e in InventorySource(store, WHERE).entries()] == ["b.jfif", "c.jpe"]


@pytest.mark.parametrize("bad", ['"src"', '"src","","v","true","false","1","e"', '"a","b'])
def test_a_bad_line_is_named(store: LocalStore, bad: str) -> None:
    write(store, [row("a.jpg"), bad])

    with pytest.raises(
        InvalidConfig, match=r"s3://dest/inv/data/0\.csv\.gz: error after line [12]"
    ):
        list(InventorySource(store, WHERE).entries())


def test_a_damaged_file_gives_nothing(store: LocalStore) -> None:
    write(store, [row("a.jpg")])
    store.put("dest", "inv/data/0.csv.gz", gzip.compress(row("b.jpg").encode()), "x")
    entries = InventorySource(store, WHERE).entries()

    with pytest.raises(InvalidConfig, match="damaged, or belongs to another inventory"):
        next(entries)


def test_results_would_land_among_the_sources(store: LocalStore) -> None:
    write(store, [row("a.jpg")])
    with pytest.raises(InvalidConfig, match="Choose another --output"):
        resolve_source(
            WHERE, SourceOptions(output="s3://src"), "r", store, LedgerConfig(bucket="l"), None
        )
