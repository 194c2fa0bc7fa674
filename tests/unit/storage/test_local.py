"""No name and no link leads out of the root of a local store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serve_app.errors import PermanentError, SourceNotAllowed, SourceNotFound
from serve_app.storage.local import LocalStore
from tests.support.fuzzing import examples

SECRET = b"a file next to the root"

_CALLS: dict[str, Callable[[LocalStore, str, str], object]] = {
    "head": lambda store, bucket, key: store.head(bucket, key),
    "get": lambda store, bucket, key: store.get(bucket, key),
    "chunks": lambda store, bucket, key: list(store.chunks(bucket, key)),
    "put": lambda store, bucket, key: store.put(bucket, key, b"new", "x"),
    "put_if_absent": lambda store, bucket, key: store.put_if_absent(bucket, key, b"new", "x"),
}


def _names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    store = LocalStore(tmp_path / "root")
    store.put("b", "inside/1.jpg", b"image", "x")
    return store


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        ("/etc", "hostname"),
        ("..", "outside/secret"),
        ("../outside", "secret"),
        ("b/../../outside", "secret"),
        ("b/inside", "1.jpg"),
        ("b", "../../outside/secret"),
        ("b", "inside/../../../outside/secret"),
        ("b", ".."),
        ("b", "/etc/hostname"),
        ("b", "/inside/1.jpg"),
    ],
)
def test_a_name_that_leads_out_is_refused(
    store: LocalStore, call: str, bucket: str, key: str
) -> None:
    with pytest.raises(SourceNotAllowed, match="is refused"):
        _CALLS[call](store, bucket, key)


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        ("", "inside/1.jpg"),
        (".", "b/inside/1.jpg"),
        ("b", ""),
        ("b", "."),
        ("b", "./inside/1.jpg"),
        ("b", "inside//1.jpg"),
        ("b", "inside/"),
        ("b", "inside/1.jpg\0.png"),
        ("b\0", "inside/1.jpg"),
        ("b", "\ud800"),
        ("b", "x" * 300),
        ("b", "x/" * 3000 + "x"),
    ],
)
def test_a_name_that_no_file_can_have_is_not_found(
    store: LocalStore, call: str, bucket: str, key: str
) -> None:
    with pytest.raises(SourceNotFound, match=r"can have|cannot exist"):
        _CALLS[call](store, bucket, key)


@pytest.mark.parametrize("bucket", ["/etc", "..", "../outside", "b/inside"])
def test_a_listing_stays_in_the_root(store: LocalStore, bucket: str) -> None:
    with pytest.raises(SourceNotAllowed):
        list(store.keys(bucket, ""))
    with pytest.raises(SourceNotAllowed):
        list(store.list(bucket, ""))


def test_links_that_lead_out_are_not_followed(store: LocalStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "b" / "file").symlink_to(tmp_path / "outside" / "secret")
    (root / "b" / "folder").symlink_to(tmp_path / "outside")
    (root / "linked").symlink_to(tmp_path / "outside")
    for bucket, key in (("b", "file"), ("b", "folder/secret"), ("linked", "secret")):
        for call in ("head", "get", "chunks"):
            with pytest.raises(SourceNotAllowed, match="symbolic link"):
                _CALLS[call](store, bucket, key)
    for bucket, key in (("b", "folder/new"), ("linked", "new")):
        for call in ("put", "put_if_absent"):
            with pytest.raises(SourceNotAllowed, match="symbolic link"):
                _CALLS[call](store, bucket, key)
    assert list(store.keys("b", "")) == ["inside/1.jpg"]
    with pytest.raises(SourceNotAllowed, match="symbolic link"):
        list(store.keys("linked", ""))
    # What is written to the name of a link replaces the link.
    assert not store.put_if_absent("b", "file", b"new", "x")
    store.put("b", "file", b"new", "x")
    assert store.get("b", "file") == b"new"
    assert _names(tmp_path / "outside") == ["secret"]
    assert (tmp_path / "outside" / "secret").read_bytes() == SECRET


def test_links_within_the_root_are_followed_once(store: LocalStore, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "b" / "again").symlink_to(root / "b" / "inside")
    (root / "b" / "inside" / "above").symlink_to("..")
    (root / "b" / "circle").symlink_to("circle")
    (root / "c").mkdir()
    (root / "c" / "to-b").symlink_to("../b")
    (root / "b" / "to-c").symlink_to("../c")
    assert store.get("b", "again/1.jpg") == b"image"
    assert store.get("c", "to-b/inside/1.jpg") == b"image"
    assert list(store.keys("b", "")) == ["again/1.jpg", "inside/1.jpg"]
    assert list(store.keys("c", "")) == ["to-b/again/1.jpg", "to-b/inside/1.jpg"]
    with pytest.raises(SourceNotAllowed, match="circle"):
        store.get("b", "circle")


def test_a_root_may_be_a_link_itself(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "shortcut").symlink_to(tmp_path / "root")
    assert LocalStore(tmp_path / "shortcut").get("b", "inside/1.jpg") == b"image"
    assert list(LocalStore(tmp_path / "shortcut").keys("b", "")) == ["inside/1.jpg"]


@pytest.mark.timeout(20)
def test_a_named_pipe_is_no_object(store: LocalStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root" / "b" / "pipe")
    assert store.head("b", "pipe") is None
    with pytest.raises(SourceNotFound):
        store.get("b", "pipe")
    assert list(store.keys("b", "")) == ["inside/1.jpg"]


def test_a_key_below_a_file_cannot_be_stored(store: LocalStore, tmp_path: Path) -> None:
    for key in ("inside/1.jpg/cut.png", "inside"):
        with pytest.raises(SourceNotFound, match="Choose another key"):
            store.put("b", key, b"new", "x")
    assert _names(tmp_path / "root") == ["b"]


_PART = st.sampled_from(["", ".", "..", "b", "a", "etc", "out", "outside", "\0", "é", " "])
_PATH = st.lists(_PART, min_size=1, max_size=6).map("/".join) | st.text(max_size=8)


@settings(max_examples=examples(50))
@given(bucket=_PATH, key=_PATH)
@example(bucket="b", key="out/secret")
def test_no_key_reads_or_writes_outside_of_the_root(bucket: str, key: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder, "outside")
        outside.mkdir()
        (outside / "secret").write_bytes(SECRET)
        root = Path(folder, "root")
        (root / "b").mkdir(parents=True)
        (root / "b" / "out").symlink_to(outside)
        (root / "out").symlink_to(outside)
        store = LocalStore(root)
        for call in _CALLS.values():
            with suppress(PermanentError):
                assert call(store, bucket, key) not in (SECRET, [SECRET])
        assert _names(Path(folder)) == ["outside", "root"]
        assert _names(outside) == ["secret"]
        assert (outside / "secret").read_bytes() == SECRET


def test_folders_are_listed_once_and_objects_are_deleted(store: LocalStore) -> None:
    for key in ("runs/b/1", "runs/b/2", "runs/a-1/x", "runs/a/sub/x", "runs/note", "other/x"):
        store.put("b", key, b"x", "x")
    assert list(store.folders("b", "runs/")) == ["a-1", "a", "b"]
    assert list(store.folders("b", "")) == ["inside", "other", "runs"]
    assert list(store.folders("none", "")) == []

    store.delete("b", ["runs/b/1", "runs/b/2", "runs/b/never", "nowhere/x"])
    assert list(store.folders("b", "runs/")) == ["a-1", "a"]
    with pytest.raises(SourceNotAllowed):
        store.delete("b", ["../secret"])
