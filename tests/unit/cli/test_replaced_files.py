"""What ``foreedge models quantize`` does with the file of an earlier run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.cli.gate import replace_derived
from serve_app.errors import ModelUnavailable
from serve_app.models.engines.network import INT8
from serve_app.models.engines.records import GateRecord, derived_path, record_path
from tests.support.gated import CLOSE, gated, own_weights


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return gated(own_weights(tmp_path), tmp_path / "derived", pair=INT8)


def record_of(path: Path) -> GateRecord:
    return GateRecord.model_validate_json(record_path(path).read_bytes())


def test_a_graph_that_is_not_faster_leaves_no_older_file_in_place(older: Path) -> None:
    assert replace_derived(older, None, record_of(older))
    assert list(older.parent.iterdir()) == []


def test_nothing_is_removed_if_there_was_nothing(older: Path, tmp_path: Path) -> None:
    path = derived_path(tmp_path / "new", "own", INT8)
    assert not replace_derived(path, None, record_of(older))


def test_a_graph_that_the_gate_refuses_takes_the_place_of_one_that_passed(older: Path) -> None:
    failed = record_of(older).model_copy(
        update={"measures": CLOSE.model_copy(update={"difference": 3.0})}
    )
    assert not replace_derived(older, b"new", failed)
    assert older.read_bytes() == b"new"
    assert record_of(older).measures.reached() is None


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path, older: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = derived_path(tmp_path / "file", "own", INT8)
    with pytest.raises(ModelUnavailable, match=r"own\.onnxruntime-int8\.onnx cannot be written"):
        replace_derived(path, b"new", record_of(older))
