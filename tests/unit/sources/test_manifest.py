"""Manifest files: CSV and JSON lines, compressed or not, and what can be wrong with them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from ingest.sources.base import Entry
from ingest.sources.manifest import ManifestSource
from serve_app.errors import InvalidConfig


def manifest(path: Path, **options: bool) -> list[Entry]:
    return list(ManifestSource(path, **options).entries())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", 'bucket,key\nb,1.jpg\nb,"2, 3.jpg"\n'),
        ("m.csv", 'key,bucket\n1.jpg,b\n"2, 3.jpg",b\n'),
        ("m.csv", '\ufeffBucket,Key\r\nb,1.jpg\r\n\r\nb,"2, 3.jpg"\r\n'),
        ("m.csv", 'b,1.jpg\nb,"2, 3.jpg"\n'),
        ("m.jsonl", '{"bucket":"b","key":"1.jpg"}\n\n{"bucket":"b","key":"2, 3.jpg"}\n'),
        ("m", '{"bucket":"b","key":"1.jpg"}\n{"bucket":"b","key":"2, 3.jpg","etag":null}'),
        ("m.csv", 'Bucket, Key\nb, 1.jpg\nb, "2, 3.jpg"\n'),
        ("m.csv", 'BUCKET,KEY,VersionId\nb,1.jpg,\nb,"2, 3.jpg",\n'),
        ("m.jsonl", '{"Bucket":"b","Key":"1.jpg"}\n{"Bucket":"b","Key":"2, 3.jpg","ETag":""}\n'),
    ],
)
def test_manifests_in_every_form(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, newline="")

    assert manifest(path) == [Entry("b", "1.jpg"), Entry("b", "2, 3.jpg")]


def test_a_manifest_s_optional_columns(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('bucket,key,etag,version_id,job_id\nb,k,"""e""",v,j\nb,l,,,\n')

    assert manifest(path) == [Entry("b", "k", "e", "v", "j"), Entry("b", "l")]


@pytest.mark.parametrize("name", ["m.csv.gz", "m.jsonl.gz", "m.csv", "m"])
def test_compressed_manifests(tmp_path: Path, name: str) -> None:
    text = '{"bucket":"b","key":"1.jpg"}\n' if "jsonl" in name else "bucket,key\nb,1.jpg\n"
    (tmp_path / name).write_bytes(gzip.compress(text.encode()))

    found = ManifestSource(tmp_path / name)

    assert list(found.entries()) == [Entry("b", "1.jpg")]
    assert (found.total, found.buckets) == (1, {"b"})


def test_a_compressed_manifest_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "m.csv.gz"
    path.write_bytes(gzip.compress(b"b,1.jpg\n" * 1_000)[:-9])

    with pytest.raises(InvalidConfig, match=r"m\.csv\.gz"):
        ManifestSource(path)


def test_keys_of_an_inventory_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("b,a+b%2B.jpg\n")

    assert [entry.key for entry in manifest(path, url_encoded=True)] == ["a b+.jpg"]
    assert [entry.key for entry in manifest(path)] == ["a+b%2B.jpg"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("m.csv", "b,1.jpg\nb\nb,\n", ["2 bad lines", "line 2: 1 columns", "line 3: key"]),
        ("m.csv", "bucket,key,size\nb,k,12\n", ["line 2: size"]),
        ("m.jsonl", '{"bucket":"b"}\n[1]\n{', ["line 1: key", "line 2: not a JSON ob", "line 3"]),
        (
            "m.csv",
            "bucket,key,job_id\nb,1,x\nb,2,x\n",
            ["line 3: job_id 'x' was used in an earlier line"],
        ),
        ("m.jsonl", '{"bucket":"b","key":"k","job_id":7}', ["line 1: job_id"]),
        ("m.csv", "bucket;key\nb;1.jpg\n", ["line 1: the columns are separated by semicolons"]),
        ("m.csv", "b;1.jpg;etag\n", ["separated by semicolons; separate them by commas"]),
        ("m.tsv", "b\t1.jpg\n", ["line 1: the columns are separated by tabs"]),
        ("m.csv", "s3://b,1.jpg\n", ["line 1: bucket: 's3://b' is no name of a bucket"]),
        ("m.json", '[{"bucket":"b","key":"k"}]', ["a JSON array; write one object on each line"]),
        ("m.jsonl", '[{"bucket":"b","key":"k"}]', ["a JSON array; write one object on each line"]),
        ("m.csv", "\n".join("x" for _ in range(30)), ["30 bad lines", "and 20 more"]),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises(InvalidConfig) as raised:
        ManifestSource(path)

    for part in expected:
        assert part in raised.value.message


def test_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")

    for name in ("missing.csv", "binary.csv"):
        with pytest.raises(InvalidConfig, match=name):
            ManifestSource(tmp_path / name)


def test_a_manifest_of_s3_batch_names_versions(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"b,a%20b.jpg,PZ9ibn9D5lP6p298B7S9_ceqx1n5EJ0p\nb,c.jpg,{'0a' * 16}\n")

    batch, with_etag = manifest(path, url_encoded=True)

    assert batch == Entry("b", "a b.jpg", version_id="PZ9ibn9D5lP6p298B7S9_ceqx1n5EJ0p")
    assert with_etag == Entry("b", "c.jpg", etag="0a" * 16)


def test_encoded_keys_are_checked_as_they_are_once_decoded(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("b," + "%C3%BC" * 512 + "\n")
    assert [entry.key for entry in manifest(path, url_encoded=True)] == ["ü" * 512]
    path.write_text("b,a.jpg\nb,%FF.jpg\n")
    with pytest.raises(InvalidConfig, match="line 2: key: is not UTF-8"):
        manifest(path, url_encoded=True)
