"""The images of a local folder, and what is counted instead of being passed over in silence."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.sources.folder import image_files
from serve_app.errors import InvalidConfig

PATH_MAX = 4096
"""Bytes of the longest path that Linux takes, with the byte at its end. Nobody can read what has a
longer one, not even root, who may read every folder."""
_NAME_BYTES = 200


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder below ``tmp_path`` whose path is almost as long as one can be.

    It has an image with a short name, and an image and a folder whose paths are too long.
    """
    path = tmp_path
    while len(os.fsencode(path)) + 2 * _NAME_BYTES < PATH_MAX:
        path /= "d" * _NAME_BYTES
    path.mkdir(parents=True)
    rest = PATH_MAX - len(os.fsencode(path)) - 12
    path /= "e" * min(rest, 255)
    path.mkdir()
    place = os.open(path, os.O_DIRECTORY)
    try:
        (path / "1.jpg").write_bytes(b"x")
        os.close(os.open("f" * _NAME_BYTES + ".jpg", os.O_CREAT | os.O_WRONLY, dir_fd=place))
        os.mkdir("g" * _NAME_BYTES, dir_fd=place)
        yield path
    finally:
        os.close(place)
        shutil.rmtree(tmp_path / ("d" * _NAME_BYTES))


def test_what_cannot_be_read_is_counted(deep: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        os.scandir(deep / ("g" * _NAME_BYTES))

    images, skipped = image_files(tmp_path)

    assert images == [deep / "1.jpg"]
    assert skipped == {"that cannot be read": 1, "unreadable folder": 1}


def test_a_folder_that_cannot_be_read_is_refused_with_the_reason(deep: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"the folder .*/g+ cannot be read: File name too long"):
        image_files(deep / ("g" * _NAME_BYTES))


def test_links_to_folders_are_counted_and_not_followed(tmp_path: Path) -> None:
    shelf, elsewhere = tmp_path / "shelf", tmp_path / "elsewhere"
    for folder in (shelf / "sub", elsewhere):
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(b"x")
    (shelf / "linked").symlink_to(elsewhere)
    (shelf / "again").symlink_to(shelf / "sub")
    (shelf / "round").symlink_to(shelf)

    images, skipped = image_files(shelf)

    assert images == [shelf / "sub" / "1.jpg"]
    assert skipped == {"linked folder": 3}


def test_a_link_to_itself_is_counted(tmp_path: Path) -> None:
    (tmp_path / "round.jpg").symlink_to("round.jpg")

    assert image_files(tmp_path) == ([], {"without content of its own": 1})
