"""``foreedge bench-node``: one file with all that a node can do, and what replicas need for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import yaml

from ingest.node.report import NodeReport
from ingest.node.speed import Case, measure_case
from ingest.scaling.plan_inputs import read_profile
from loadtests.tuner.pairs import judge_pairs, serving_pairs
from serve_app.config import AppConfig
from serve_app.errors import ModelUnavailable
from serve_app.models.derive import derive_graph, pass_gate
from serve_app.models.engines.choice import Choice
from serve_app.models.engines.network import GATED, INT8, Pair
from serve_app.models.engines.processor import pairs_by_speed, this_machine, why_not_runnable
from serve_app.models.engines.records import (
    GateRecord,
    derived_folder,
    derived_path,
    read_current,
    write_derived,
)
from serve_app.models.gate_images import BUNDLED_SET, draw_gate_images, shrink_images
from serve_app.models.inference import load_model
from serve_app.models.registry import locate_weights

FAST = {pair for pair in pairs_by_speed(this_machine()) if pair in GATED}
"""Pairs that are faster here, of those that need no calibration."""
SLOW = {pair for pair in GATED if why_not_runnable(pair, this_machine()) is None} - FAST
"""The others of them that run here."""
FOREEDGE = Path(sys.executable).parent / "foreedge"


def own_gate(pair: Pair, config: AppConfig) -> GateRecord:
    """Write the files of a pair that was measured on images of the user's own."""
    weights = locate_weights("folio", config)
    images = list(shrink_images(draw_gate_images(2), weights.facts.size_px))
    graph = derive_graph(weights, [image.square for image in images])
    record = pass_gate(
        weights, pair, graph, images, image_set="the images of mine", machine=this_machine()
    )
    write_derived(derived_path(derived_folder(config), "folio", pair), graph.content, record)
    return record


def failed_gate(pair: Pair, config: AppConfig) -> GateRecord:
    """Write the files of a pair that has not passed the gate on the bundled images."""
    record = own_gate(pair, config)
    measures = record.measures.model_copy(update={"difference": 9.0})
    found = record.model_copy(update={"image_set": BUNDLED_SET, "measures": measures})
    path = derived_path(derived_folder(config), "folio", pair)
    write_derived(path, path.read_bytes(), found)
    return found


def test_a_node_is_measured_and_its_settings_serve(tmp_path: Path) -> None:
    out = tmp_path / "out" / "node.json"
    config = AppConfig.load({"models": ["folio"], "u2net_home": str(tmp_path)})
    own = {pair: own_gate(pair, config) for pair in FAST}
    failed = {pair: failed_gate(pair, config) for pair in SLOW}
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
    for pair, record in own.items():
        # A gate on the user's own images is not replaced by one on the bundled ones.
        assert record in report.gates
        path = derived_path(derived_folder(config), "folio", pair)
        assert read_current(path, locate_weights("folio", config), pair, this_machine()) == record
    for pair, record in failed.items():
        # A gate on the bundled images is passed again.
        assert record not in report.gates
        (again,) = [each for each in report.gates if each.precision == pair.precision]
        assert again.image_set == BUNDLED_SET
        assert again.measures.reached() is not None
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
    tried = set(serving_pairs(judge_pairs("folio", close, this_machine())))
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


def test_a_file_that_nothing_serves_ends_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(b"no model")
    done = subprocess.run(
        [str(FOREEDGE), "bench-node", "--model", "own", "--seconds", "0.1"],
        env={
            **os.environ,
            "U2NET_HOME": str(tmp_path),
            "FOREEDGE_MODEL_FILES": json.dumps({"own": str(path)}),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    assert f"{path} cannot be loaded" in " ".join(done.stderr.split())
    assert done.returncode == 2
    assert not (tmp_path / "node.json").exists()


def test_an_engine_that_dies_is_reported(tmp_path: Path) -> None:
    weights = locate_weights("folio", AppConfig.load({"models": ["folio"]}))
    with ThreadPoolExecutor(1) as pool:
        measuring = pool.submit(measure_case, Case(weights, Choice(), 1, seconds=60))
        began_s = time.monotonic()
        while not (found := measuring_processes()) and time.monotonic() < began_s + 30:
            time.sleep(0.05)
        for process in found:
            process.kill()
        with pytest.raises(ModelUnavailable, match="measured onnxruntime float32 has died"):
            measuring.result(60)


def measuring_processes() -> list[psutil.Process]:
    """Return the processes that measure an engine for this one."""
    children = psutil.Process().children()
    return [each for each in children if "spawn_main" in " ".join(each.cmdline())]
