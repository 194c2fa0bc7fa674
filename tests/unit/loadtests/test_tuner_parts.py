"""The tuner's Serve configurations, locust's numbers, and the files that it writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from PIL import Image
from ray.serve._private.build_app import build_app
from ray.serve.schema import ServeDeploySchema

from ingest.cli.settings import read_settings_file
from loadtests.benchmarks.plan_profile import ingest_per_s, overhead_s
from loadtests.tuner.driver import read_stats
from loadtests.tuner.pairs import check_accuracy_is_used, judge_pairs, serving_pairs
from loadtests.tuner.report import tuning_section, write_page, write_yaml
from loadtests.tuner.target import application_config, serve_config, tuned_args
from loadtests.tuner.trials import Setting, Trial
from serve_app import app
from serve_app.config import AppConfig
from serve_app.errors import InternalError, InvalidConfig
from serve_app.models.engines.records import derived_folder
from serve_app.models.registry import locate_weights
from tests.support.gated import AMX, BFLOAT16, CLOSE, gated

ARGS: dict[str, Any] = {"models": ["folio"], "segmenter": {"timeout_s": 30}}
STACKED = Setting("stack", segmenters=2, threads=4, max_batch_size=6, max_ongoing=32, pipelines=3)
INSIDE = Setting(placement="pipeline", threads=3, pipelines=2)
EXACT, FLOAT32 = "onnxruntime float32", "openvino float32"
ROOT = Path(__file__).parents[3]


def test_changes_without_a_restart_leave_the_arguments_alone() -> None:
    one, other = (
        application_config(ARGS, Setting(threads=1)),
        application_config(ARGS, Setting(threads=4, segmenters=2, max_ongoing=9, pipelines=2)),
    )
    assert one["args"] == other["args"]
    assert one["deployments"] != other["deployments"]
    assert application_config(ARGS, STACKED)["args"] != one["args"]
    assert application_config(ARGS, INSIDE)["args"] != one["args"]
    assert one["args"]["segmenter"]["timeout_s"] == 30


@pytest.mark.parametrize(
    ("setting", "models"),
    [(Setting(), {"Segmenter-folio"}), (STACKED, {"Segmenter-folio"}), (INSIDE, set())],
)
def test_serve_accepts_it_and_the_deployments_exist(setting: Setting, models: set[str]) -> None:
    config = serve_config([application_config(ARGS, setting)], "http://127.0.0.1:8123")
    parsed = ServeDeploySchema.model_validate(config)
    assert parsed.http_options.port == 8123
    changed = {item.name for item in parsed.applications[0].deployments}
    assert changed == {"CutoutPipeline", *models}
    application = app.build(parsed.applications[0].args)
    built = build_app(application, name="foreedge", make_deployment_handle=MagicMock())
    assert built.ingress_deployment_name == "HttpApi"
    assert changed <= {deployment.name for deployment in built.deployments}


def winner(setting: Setting, folder: Path) -> AppConfig:
    """Return the settings of the Serve file that is written for a winner."""
    final = {**application_config(ARGS, setting), "args": tuned_args(ARGS, setting)}
    del final["deployments"]
    path = folder / "cluster" / "serve.tuned.yaml"
    write_yaml(path, serve_config([final], "http://0.0.0.0:8000"), ["Chosen: by a test."])
    assert path.read_text().startswith("# Chosen: by a test.\n")
    return AppConfig.load(read_settings_file(path))


def test_the_file_of_the_winner_has_its_settings(tmp_path: Path) -> None:
    config = winner(STACKED, tmp_path)
    segmenter = config.segmenter
    assert (segmenter.execution, segmenter.replicas, segmenter.threads) == ("stack", 2, 4)
    assert (segmenter.max_batch_size, segmenter.max_ongoing) == (6, 32)
    assert (config.pipeline.replicas, segmenter.timeout_s) == (3, 30)


def test_the_file_of_a_winner_with_the_model_in_the_pipeline(tmp_path: Path) -> None:
    config = winner(INSIDE, tmp_path)
    segmenter, pipeline = config.segmenter, config.pipeline
    assert (segmenter.placement, segmenter.threads, segmenter.timeout_s) == ("pipeline", 3, 30)
    assert (pipeline.replicas, pipeline.threads, pipeline.num_cpus) == (2, 3, 3)


def test_the_file_of_a_winner_with_another_engine(tmp_path: Path) -> None:
    segmenter = winner(replace(INSIDE, pair="openvino bfloat16"), tmp_path).segmenter
    assert (segmenter.engine, segmenter.precision) == ("openvino", "bfloat16")
    one, other = (application_config(ARGS, Setting(pair=each)) for each in (EXACT, FLOAT32))
    assert one["args"] != other["args"]
    assert AppConfig.load(other["args"]).segmenter.engine == "openvino"


def test_openvino_compiles_for_the_threads_of_a_setting() -> None:
    config = application_config(ARGS, Setting(pair=FLOAT32, threads=5))
    assert config["args"]["segmenter"]["threads"] == 5
    (segmenter,) = [item for item in config["deployments"] if "Segmenter" in item["name"]]
    assert segmenter["user_config"] == {}


def test_the_tuner_tries_no_pair_whose_masks_have_not_passed_the_gate(tmp_path: Path) -> None:
    args = {"models": ["folio"], "u2net_home": str(tmp_path), "segmenter": {"accuracy": "close"}}
    judged = judge_pairs("folio", args, AMX)
    assert serving_pairs(judged) == (EXACT, FLOAT32)
    assert "Measure it here with 'foreedge models gate folio" in str(judged[str(BFLOAT16)])
    assert serving_pairs(judge_pairs("folio", args, replace(AMX, openvino=None))) == (EXACT,)


@pytest.mark.parametrize(
    ("segmenter", "tried"),
    [
        ({}, False),
        ({"accuracy": "exact"}, False),
        ({"accuracy": "close"}, True),
        # The tuner varies the execution itself.
        ({"accuracy": "close", "execution": "stack"}, True),
    ],
)
def test_the_tuner_loosens_the_masks_only_if_it_is_told_so(
    tmp_path: Path, segmenter: dict[str, str], tried: bool
) -> None:
    args = {"models": ["folio"], "u2net_home": str(tmp_path), "segmenter": segmenter}
    config = AppConfig.load(args)
    gated(locate_weights("folio", config), derived_folder(config), measures=CLOSE)
    assert (str(BFLOAT16) in serving_pairs(judge_pairs("folio", args, AMX))) == tried


def test_an_accuracy_that_nothing_uses_is_refused_with_the_remedy(tmp_path: Path) -> None:
    args = {"models": ["folio"], "u2net_home": str(tmp_path), "segmenter": {"accuracy": "close"}}
    judged = judge_pairs("folio", args, AMX)
    with pytest.raises(InvalidConfig, match="'foreedge models gate folio --precision bfloat16'"):
        check_accuracy_is_used("close", judged)
    check_accuracy_is_used("exact", judged)
    with pytest.raises(InvalidConfig, match="runs nothing faster than float32"):
        check_accuracy_is_used(
            "close", judge_pairs("folio", args, replace(AMX, features=frozenset()))
        )
    config = AppConfig.load(args)
    gated(locate_weights("folio", config), derived_folder(config), measures=CLOSE)
    check_accuracy_is_used("close", judge_pairs("folio", args, AMX))


@pytest.mark.parametrize("path", sorted((ROOT / "cluster").glob("serve*.yaml")), ids=str)
def test_the_serve_files_are_valid(path: Path) -> None:
    ServeDeploySchema.model_validate(yaml.safe_load(path.read_text("utf-8")))
    AppConfig.load(read_settings_file(path))


def test_a_trial_is_read_from_locusts_statistics() -> None:
    row = {
        "Name": "Aggregated", "Request Count": "40", "Failure Count": "10", "Requests/s": "8.0",
        "50%": "150", "95%": "400",
    }  # fmt: skip
    trial = read_stats([{"Name": "cutout"}, row], Setting(), 4)
    # Requests that failed do not count as images.
    assert trial == Trial(Setting(), 4, 6.0, 0.15, 0.4, 10)
    with pytest.raises(InternalError):
        read_stats([{**row, "Request Count": "0"}], Setting(), 4)
    with pytest.raises(InternalError):
        read_stats([], Setting(), 4)


def test_the_page_and_the_plot_are_written(tmp_path: Path) -> None:
    trials = [Trial(Setting(), 1, 4.0, 0.1, 0.2, 0), Trial(STACKED, 8, 6.0, 0.5, 0.9, 0)]
    trials.append(Trial(Setting(threads=4), 8, 0.0, 0.0, 0.0, 3))
    page = write_page(tmp_path, trials, trials[1], 1.0, "<folio>", ["a & b"])
    text = page.read_text("utf-8")
    assert "&lt;folio&gt;" in text
    assert "a &amp; b" in text
    assert text.count("<tr") == 1 + len(trials)
    assert 'class="chosen"' in text
    with Image.open(tmp_path / "tune.png") as image:
        assert image.width > 800


def test_the_table_has_the_best_setting_of_each_engine_and_placement() -> None:
    bfloat16 = replace(INSIDE, pair=str(BFLOAT16))
    trials = [
        Trial(Setting(), 1, 4.0, 0.1, 0.2, 0),
        Trial(Setting(threads=4), 8, 6.0, 0.1, 0.4, 0),
        Trial(INSIDE, 8, 9.0, 0.1, 3.0, 0),
        Trial(bfloat16, 8, 12.0, 0.1, 0.5, 0),
        Trial(replace(bfloat16, pipelines=1), 8, 13.0, 0.1, 0.5, failures=1),
    ]
    text = tuning_section(trials, trials[3], 1.0, "own", ["On a test.", "Chosen."])
    # Neither what missed the objective nor what failed.
    assert text.splitlines() == [
        "| own, the best setting of each engine and placement | users | images/s | p95 |",
        "|---|---:|---:|---:|",
        "| fan_out, model in 2 pipelines x 3 threads, openvino bfloat16 (chosen) | 8 | 12.00 "
        "| 0.50 s |",
        "| fan_out, 1 x 4 threads, 64 ongoing, 1 pipeline | 8 | 6.00 | 0.40 s |",
        "",
        "On a test. Chosen.",
    ]


def test_what_the_application_adds_is_the_difference_to_the_bare_loop() -> None:
    def result(model: str, bare: float, queue: float) -> dict[str, Any]:
        cost = {"cpu_s_per_image": queue + 0.01, "idle_cpu_s_per_image": 0.01}
        return {"model": model, "bare": {"cpu_s_per_image": bare}, "queue": cost}

    results = [result("u2netp", 0.5, 0.9), result("folio", 0.06, 0.08)]
    assert overhead_s(results) == pytest.approx(0.02)
    assert overhead_s([result("folio", 0.06, 0.05)]) == 0
    with pytest.raises(InvalidConfig, match="make bench"):
        overhead_s(results[:1])


def test_an_ingest_actor_is_bounded_by_its_core_and_by_its_queue() -> None:
    def results(cpu_us: float, per_second: float) -> list[dict[str, Any]]:
        return [
            {"case": "memory, 10 ms a call", "per_second": per_second, "cpu_us_per_message": 1.0},
            {"case": "SqsIngest on Ray, moto", "per_second": 50.0, "cpu_us_per_message": cpu_us},
        ]

    assert ingest_per_s(results(2000, 900)) == 500
    assert ingest_per_s(results(500, 900)) == 900
    with pytest.raises(InvalidConfig, match="bench-ingest"):
        ingest_per_s(results(500, 900)[:1])
