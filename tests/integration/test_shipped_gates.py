"""The files of other precisions that an image gets when it is built."""

from __future__ import annotations

from pathlib import Path

from ingest.cli.gate import write_shipped_gates
from serve_app.config import AppConfig
from serve_app.models.engines.choice import choose_pair
from serve_app.models.engines.network import GATED
from serve_app.models.engines.openvino_runtime import openvino_version
from serve_app.models.engines.processor import Machine
from serve_app.models.engines.records import derived_folder
from serve_app.models.registry import locate_weights

BUILDER = Machine("x86_64", frozenset({"avx2"}), openvino_version())
NODE = Machine("x86_64", frozenset({"avx2", "amx_bf16", "avx512_fp16"}), openvino_version())


def test_a_builder_without_the_processor_writes_what_a_node_serves(tmp_path: Path) -> None:
    segmenter = {"engine": "auto", "accuracy": "close"}
    config = AppConfig.load({"models": ["folio"], "u2net_home": tmp_path, "segmenter": segmenter})
    written = write_shipped_gates("folio", config, BUILDER)
    assert [path.name for path in written] == [
        f"folio.{pair.engine}-{pair.precision}.onnx" for pair in GATED
    ]
    weights = locate_weights("folio", config)
    found = choose_pair(weights, config.segmenter, derived_folder(config), NODE)
    assert (found.pair, found.derived) == (GATED[0], written[0])
    # The numbers are of other kernels than those of this processor.
    graviton = Machine("aarch64", frozenset({"asimdhp"}), openvino_version())
    found = choose_pair(weights, config.segmenter, derived_folder(config), graviton)
    assert "another architecture" in found.because


def test_nothing_is_written_without_openvino(tmp_path: Path) -> None:
    config = AppConfig.load({"models": ["folio"], "u2net_home": tmp_path})
    assert write_shipped_gates("folio", config, Machine("x86_64", frozenset(), None)) == []
    assert list(tmp_path.iterdir()) == []
