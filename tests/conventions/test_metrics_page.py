"""The table of docs/operations/monitoring.md, held against the metrics that the code defines."""

from __future__ import annotations

from docs.generate_metrics import PAGE, page


def test_the_table_is_what_make_docs_writes() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make docs`"
