"""Collections of garbage, which look through no object of a library."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from serve_app.serving.garbage import freeze_loaded_objects


@pytest.fixture
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("thawed")
def test_what_is_loaded_is_not_looked_through() -> None:
    loaded: list[list[int]] = [[] for _ in range(1_000)]
    assert any(found is loaded for found in gc.get_objects())
    freeze_loaded_objects()
    assert not any(found is loaded for found in gc.get_objects())
    assert gc.get_freeze_count() > len(loaded)
