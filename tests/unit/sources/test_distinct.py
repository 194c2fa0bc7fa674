"""Deduplication of names."""

from __future__ import annotations

from ingest.sources.distinct import Distinct


def test_a_name_is_new_once() -> None:
    names = Distinct()
    assert [names.add("a", "b"), names.add("ab", None), names.add("a", "b")] == [True, True, False]
    names.close()
