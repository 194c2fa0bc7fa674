"""The names of the cut-outs of a folder's images."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ingest.local.cutout_files import file_names, write_cutout


def test_images_whose_names_differ_in_the_suffix_keep_their_cutouts() -> None:
    images = ["a.jpg", "a.webp", "b.jpg", "sub/a.jpg", "c.tar.png"]
    assert file_names(images) == ["a.jpg.png", "a.webp.png", "b.png", "sub/a.png", "c.tar.png"]
    assert file_names(["a.jpg", "b"], "webp") == ["a.webp", "b.webp"]
    assert file_names([".jpg", "a.b/c", "d."]) == [".jpg.png", "a.b/c.png", "d..png"]


PARTS = st.lists(st.sampled_from(["a", ".jpg", ".png", "/a"]))


@given(st.sets(PARTS.map(lambda parts: "a" + "".join(parts))))
def test_no_two_images_have_a_cutout_of_one_name(images: set[str]) -> None:
    assert len(set(file_names(images))) == len(images)


def test_a_cutout_takes_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.png"
    write_cutout(path, b"old")
    write_cutout(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]
