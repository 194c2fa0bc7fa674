"""The tables of engines and precisions: one for each kind of processor that was measured."""

from __future__ import annotations

from pathlib import Path

from loadtests.quality.engines import DOCS, write_table
from serve_app.models.engines.processor import Machine

AMX = Machine("x86_64", frozenset({"amx_bf16", "avx512_fp16"}), None)
AMD = Machine("x86_64", frozenset({"avx512_bf16"}), None, vendor="AuthenticAMD")
PLAIN = Machine("x86_64", frozenset({"avx2"}), None)
EMPTY = "before\n<!-- engines: begin -->\n<!-- engines: end -->\nafter\n"


def test_a_machine_replaces_its_own_table_alone(tmp_path: Path) -> None:
    document = tmp_path / "quality.md"
    document.write_text(EMPTY)
    write_table(AMX, "of Intel", document)
    write_table(AMD, "of AMD", document)
    write_table(PLAIN, "of float32", document)
    write_table(AMX, "of Intel again", document)
    text = document.read_text()
    places = [text.index(each) for each in ("before", "Intel again", "AMD", "float32", "after")]
    assert places == sorted(places)
    assert "of Intel\n" not in text
    assert text.count(": begin -->") == text.count(": end -->") == 4


def test_the_document_has_a_table_that_the_next_measurement_replaces(tmp_path: Path) -> None:
    document = tmp_path / "quality.md"
    document.write_bytes(DOCS.read_bytes())
    write_table(AMX, "measured again", document)
    before, after = DOCS.read_text("utf-8"), document.read_text("utf-8")
    assert "measured again" in after
    assert after.count("<!-- engines-") == before.count("<!-- engines-")
