"""The local store lists objects as S3 does: in order of keys, by prefix and starting point."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.errors import SourceNotFound
from serve_app.storage.local import LocalStore
from tests.support.fuzzing import examples

# Names around the slash in the order of characters, so that folders and files mix.
_NAME = st.text("a-.0b ü", min_size=1, max_size=3).filter(lambda name: name.strip("."))
_KEY = st.lists(_NAME, min_size=1, max_size=3).map("/".join)


def _free_of_clashes(keys: set[str]) -> set[str]:
    """Leave out keys that cannot be files, since others make folders of their names."""
    return {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}


@settings(max_examples=examples(25))
@given(st.sets(_KEY, max_size=12).map(_free_of_clashes), _KEY, _KEY)
def test_keys_come_in_the_order_of_their_characters(
    keys: set[str], prefix: str, after: str
) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = LocalStore(Path(root))
        for key in keys:
            store.put("b", key, b"x", "x")
        for start in ("", prefix, prefix[:1]):
            expected = sorted(key for key in keys if key.startswith(start))
            assert list(store.keys("b", start)) == expected
            assert [item.key for item in store.list("b", start)] == expected
            past = [key for key in expected if key > after]
            assert list(store.keys("b", start, after)) == past
            assert [item.key for item in store.list("b", start, after)] == past


def test_a_bucket_that_does_not_exist_has_no_keys(tmp_path: Path) -> None:
    assert list(LocalStore(tmp_path).keys("b", "")) == []


def test_an_object_in_chunks(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    data = bytes(range(256)) * 10_000
    store.put("b", "k", data, "x")
    chunks = list(store.chunks("b", "k"))
    assert b"".join(chunks) == data
    assert len(chunks) == 3
    with pytest.raises(SourceNotFound):
        list(store.chunks("b", "none"))
