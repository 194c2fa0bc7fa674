"""``foreedge bench-node``: one file with all that a node can do, and what replicas need for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from ingest.node.report import NodeReport
from ingest.scaling.plan_inputs import read_profile
from loadtests.tuner.pairs import find_pairs
from serve_app.config import AppConfig
from serve_app.models.engines.network import GATED, INT8, Pair
from serve_app.models.engines.processor import pairs_by_speed, this_machine
from serve_app.models.inference import load_model

FAST = {pair for pair in pairs_by_speed(this_machine()) if pair in GATED}
"""Pairs that are faster here, of those that need no calibration."""
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
    assert measured >= FAST
    assert "quantize folio" in report.not_measured.get(str(INT8), "quantize folio")
    for speed in report.speeds:
        assert speed.images_per_s > 0
        assert speed.cpu_s_per_image > 0
        assert 50 < speed.peak_mb < 2_000
    assert len(report.gates) + 2 == len(measured)
    profile = read_profile(out)
    assert {str(pair) for pair in profile.pairs()} == {str(pair) for pair in measured}
    assert profile.segment("folio") == report.speeds[0].cpu_s_per_image
    assert profile.pixels_s > 0.005
    assert {best.accuracy for best in report.settings} == {"exact", "close", "fast"}
    written = yaml.safe_load(out.with_suffix(".yaml").read_text("utf-8"))
    [exact] = [best for best in report.settings if best.accuracy == "exact"]
    configured = AppConfig.load(written)
    assert configured.models == ("folio",)
    assert configured.segmenter.engine == exact.engine
    assert configured.segmenter.num_cpus == configured.segmenter.threads == exact.threads
    # The tuner tries what has passed.
    close = {"models": ["folio"], "u2net_home": str(tmp_path), "segmenter": {"accuracy": "close"}}
    tried = set(find_pairs("folio", close, this_machine()))
    assert {str(pair) for pair in FAST} <= tried
    for best in report.settings:
        segmenter = best.model_dump(exclude={"images_per_s"})
        config = AppConfig.load(
            {"models": ["folio"], "u2net_home": tmp_path, "segmenter": segmenter}
        )
        model = load_model("folio", config)
        assert model.choice.pair == Pair(best.engine, best.precision)
        assert model.choice.refused is None


def test_on_an_emulated_processor_the_kernels_are_reported_and_no_times(tmp_path: Path) -> None:
    out = tmp_path / "node.json"
    command = [str(FOREEDGE), "bench-node", "--model", "folio", "--emulated", "--out", str(out)]
    done = subprocess.run(
        command,
        env={**os.environ, "U2NET_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert "none were measured" in done.stdout
    report = NodeReport.model_validate_json(out.read_bytes())
    expected = {Pair("onnxruntime", "float32"), Pair("openvino", "float32")}
    pairs = {Pair(each.engine, each.precision) for each in report.kernels}
    assert pairs >= expected | FAST
    assert all(sum(each.kernels.values()) > 10 for each in report.kernels)
    assert (report.emulated, report.speeds, report.settings) == (True, [], [])
    assert report.profile is None
    assert [path.name for path in tmp_path.iterdir()] == ["node.json"]
