"""The list of the images that failed: what stays in it, and what it does not replace."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ingest.cli.failure_list import FailureList
from serve_app.errors import CorruptImage, EmptyImage, InvalidConfig

NAMES = ["=a.jpg", "b,\n.jpg", "'=c.jpg", "sub/é.jpg"]


def rows(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["image"]: row["code"] for row in csv.DictReader(file)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a folder of cut-outs with a list of four images."""
    out = tmp_path / "out"
    failures = FailureList(out)
    for name in NAMES:
        failures.ended(name, CorruptImage("-1"))
    failures.write()
    assert [path.name for path in out.iterdir()] == ["failures.csv"]
    return out


def test_images_that_were_not_tried_again_stay(out: Path) -> None:
    before = (out / "failures.csv").read_bytes()
    failures = FailureList(out)
    failures.keep_only([*NAMES[:2], NAMES[3]])
    failures.write()
    assert rows(out / "failures.csv").keys() == {"'=a.jpg", "b,\n.jpg", "sub/é.jpg"}
    assert FailureList(out).codes() == []

    failures = FailureList(out)
    failures.keep_only(NAMES[:2])
    failures.ended(NAMES[0], None)
    failures.ended("new.jpg", EmptyImage("no bytes"))
    failures.write()
    assert rows(out / "failures.csv") == {"b,\n.jpg": "corrupt_image", "new.jpg": "empty_image"}
    assert b"'-1" in before


def test_the_list_goes_when_all_its_images_are_repaired(out: Path) -> None:
    failures = FailureList(out)
    failures.keep_only(NAMES[:2])
    for name in NAMES[:2]:
        failures.ended(name, None)
    failures.write()
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    "data", [b"", b"name,reason\na,b\n", b"\xff\xfe\x00", b"image,code,message\nonly\n"]
)
def test_a_file_of_somebody_else_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "failures.csv").write_bytes(data)
    with pytest.raises(InvalidConfig, match="no list of failures"):
        FailureList(tmp_path)
    assert (tmp_path / "failures.csv").read_bytes() == data


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"-")
    with pytest.raises(InvalidConfig, match="out is not a folder"):
        FailureList(tmp_path / "out")
    (tmp_path / "failures.csv").mkdir()
    with pytest.raises(InvalidConfig, match="no list of failures"):
        FailureList(tmp_path)


def test_a_list_that_cannot_be_written_leaves_the_earlier_one(out: Path) -> None:
    before = (out / "failures.csv").read_bytes()
    failures = FailureList(out)
    failures.ended("no text \ud800.jpg", CorruptImage("cut short"))
    with pytest.raises(UnicodeEncodeError):
        failures.write()
    assert (out / "failures.csv").read_bytes() == before
    assert [path.name for path in out.iterdir()] == ["failures.csv"]
