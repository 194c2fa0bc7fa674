"""``foreedge bench-node``: one file with all that a node can do, and what replicas need for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ingest.node.bench import NodeReport
from serve_app.config import AppConfig
from serve_app.models.engines.network import Pair
from serve_app.models.engines.processor import pairs_by_speed, this_machine
from serve_app.models.inference import load_model

FOREEDGE = Path(sys.executable).parent / "foreedge"


def test_a_node_is_measured_and_its_settings_serve(tmp_path: Path) -> None:
    out = tmp_path / "out" / "node.json"
    command = [str(FOREEDGE), "bench-node", "--model", "folio", "--seconds", "0.1", "--json"]
    done = subprocess.run(
        [*command, "--out", str(out)],
        env={**os.environ, "U2NET_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    report = NodeReport.model_validate_json(out.read_bytes())
    assert json.loads(done.stdout) == report.model_dump(mode="json")
    measured = {Pair(each.engine, each.precision) for each in report.speeds}
    assert measured >= {Pair("onnxruntime", "float32"), Pair("openvino", "float32")}
    assert {Pair(each.engine, each.precision) for each in report.kernels} == measured
    assert set(pairs_by_speed(this_machine())) <= measured
    for speed in report.speeds:
        assert speed.images_per_s > 0
        assert speed.cpu_s_per_image > 0
        assert 50 < speed.peak_mb < 2_000
    assert len(report.gates) + 2 == len(measured)
    for best in report.settings:
        segmenter = best.model_dump(exclude={"images_per_s"})
        config = AppConfig.load(
            {"models": ["folio"], "u2net_home": tmp_path, "segmenter": segmenter}
        )
        model = load_model("folio", config)
        assert model.choice.pair == Pair(best.engine, best.precision)
        assert model.choice.refused is None
