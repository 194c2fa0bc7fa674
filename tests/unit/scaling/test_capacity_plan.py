"""``foreedge plan``: what is asked for, and what comes out."""

from __future__ import annotations

import io
import json
import math
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from ingest.cli.main import app
from ingest.cli.plan_plot import check_plot_path, plot_plan
from ingest.cli.plan_tables import Comparisons, plan_as_json, plan_notes, print_plan
from ingest.scaling.capacity_plan import (
    CapacityPlan,
    compare_engines,
    compare_families,
    make_plan,
)
from ingest.scaling.plan_inputs import (
    Profile,
    find_instance,
    parse_pair,
    read_prices,
    read_profile,
)
from ingest.scaling.sizing import PlanRequest, choose_stages, image_times, size_run
from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig
from serve_app.models.engines.network import EXACT, INT8, Pair

PROFILE = Profile.model_validate(
    {
        "measured_on": "2026-01-01",
        "machine": "a test",
        "commands": ["none"],
        "images": "none",
        "image_pixels": 2_000_000,
        "segment_s": {"fast": 0.02, "u2net-shaped": 2.0},
        "other_engines_s": {"openvino bfloat16": {"u2net-shaped": 0.5}},
        "other_engines_kernels": {"openvino bfloat16": ["amx_bf16"]},
        "pixels_s": 0.18,
        "overhead_s": 0.02,
        "control_plane": {"ingest_per_s": 100, "handle_calls_per_s": 400},
        "replica_start_s": 10,
    }
)
PRICES = read_prices()
C7I = find_instance("c7i.4xlarge", PRICES)
BFLOAT16 = Pair("openvino", "bfloat16")


@cache
def plan(images: int = 1_000_000, deadline_s: float = 86_400, **asked: Any) -> CapacityPlan:
    name = asked.pop("instance", "c8g.4xlarge")
    request = PlanRequest(
        images,
        deadline_s,
        find_instance(name, PRICES),
        asked.pop("model", "u2net"),
        **{"time_factor": 1.0, **asked},
    )
    return make_plan(request, PROFILE, PRICES)


@pytest.mark.parametrize("images", [1000, 100_000, 10_000_000])
@pytest.mark.parametrize("deadline_s", [1800, 86_400])
def test_the_deadline_is_met_with_few_more_nodes_than_the_work_takes(
    images: int, deadline_s: float
) -> None:
    made = plan(images, deadline_s)
    assert made.hours * 3600 <= deadline_s
    cpu_s = images * (2.0 + 0.2)
    least = cpu_s / made.request.instance.usable_cpus / 3600
    started = made.nodes * 2 / 60
    # A node that is there is paid for, however little of it is used.
    most = max(least * 1.15 + started + 0.6, made.hours)
    assert least * 0.99 <= made.timeline.node_hours <= most
    assert made.utilisation == pytest.approx(least / made.timeline.node_hours)


@pytest.mark.parametrize(
    ("instance", "node_cpus", "replica_cpus"),
    [("c8g.large", None, 1), ("c8g.xlarge", None, 2), ("c8g.xlarge", 3, 1), ("c8g.4xlarge", 14, 2)],
)
def test_ray_can_place_all_replicas(
    instance: str, node_cpus: float | None, replica_cpus: int
) -> None:
    made = plan(1_000_000, 3600, instance=instance, node_cpus=node_cpus)
    assert made.sizing.pipeline.cpus == made.sizing.segmenter.cpus == replica_cpus
    assert made.settings["segmenter"] == {"threads": replica_cpus, "num_cpus": replica_cpus}
    offered = made.request.instance.vcpus if node_cpus is None else node_cpus
    consumers = made.settings["queue"]["consumers"]
    with_actors = math.floor((offered - 0.2) / replica_cpus)
    places = consumers * with_actors + (made.nodes - consumers) * (offered // replica_cpus)
    assert sum(made.replicas.values()) <= places
    assert max(sum(state.running) for state in made.timeline.states) <= places


def test_the_settings_are_ones_of_the_application() -> None:
    made = plan()
    given = {**made.settings, "models": ["folio"], "ledger": {"bucket": "b"}}
    given["queue"] = {**given["queue"], "url": "https://sqs.invalid/queue"}
    config = AppConfig.load(given)
    assert config.autoscaling is not None
    assert config.queue is not None
    assert config.autoscaling.max_replicas == max(made.replicas.values())
    in_work = config.queue.consumers * config.queue.max_in_flight
    assert in_work >= made.replicas["Segmenter"] * config.segmenter.threads
    assert made.replicas["CutoutPipeline"] * config.pipeline.max_ongoing >= in_work
    each = in_work / made.replicas["CutoutPipeline"]
    assert config.pipeline.max_decoded_bytes >= 16 * each * PROFILE.image_pixels


def test_ingest_actors_follow_their_measured_limit() -> None:
    made = plan(10_000_000, 6 * 3600, model="fast")
    per_s = 10_000_000 / (6 * 3600)
    assert made.settings["queue"]["consumers"] >= per_s / 100
    assert all(needed <= limit for needed, limit in made.limits.values())
    # At most one on each node.
    assert made.nodes >= made.settings["queue"]["consumers"]


def test_another_engine_has_its_own_times_and_settings() -> None:
    exact, close = plan(instance="c7i.4xlarge"), plan(instance="c7i.4xlarge", pair=BFLOAT16)
    assert close.times.segment_s == exact.times.segment_s / 4
    assert close.times.pixels_s == exact.times.pixels_s
    assert close.nodes < exact.nodes
    assert close.node_cost_per_thousand < exact.node_cost_per_thousand / 2
    segmenter = close.settings["segmenter"]
    assert (segmenter["engine"], segmenter["precision"]) == ("openvino", "bfloat16")
    assert AppConfig.load({"segmenter": segmenter}).segmenter.required_accuracy == "fast"
    assert "engine" not in exact.settings["segmenter"]
    assert "(foreedge models gate)" in "\n".join(plan_notes(close))
    assert plan_as_json(close)["precision"] == "bfloat16"
    # Only Sapphire Rapids has AMX, and "fast" was measured with one engine.
    families = compare_families(close.request, PROFILE, PRICES)
    assert [each.request.instance.name for each in families] == ["c7i.4xlarge"]
    engines = compare_engines(exact.request, PROFILE, PRICES)
    assert [each.request.pair for each in engines] == [EXACT, BFLOAT16]
    alone = compare_engines(plan(model="fast").request, PROFILE, PRICES)
    assert [each.request.pair for each in alone] == [EXACT]


def test_int8_needs_another_command() -> None:
    times = {**PROFILE.other_engines_s, str(INT8): {"u2net-shaped": 0.5}}
    kernels = {**PROFILE.other_engines_kernels, str(INT8): ("avx512_vnni", "avx_vnni")}
    profile = PROFILE.model_copy(
        update={"other_engines_s": times, "other_engines_kernels": kernels}
    )
    request = plan(instance="c7i.4xlarge").request
    said = "\n".join(plan_notes(make_plan(replace(request, pair=INT8), profile, PRICES)))
    assert "(foreedge models quantize)" in said
    assert "models gate" not in said


def test_an_engine_that_there_is_none_of_names_the_option() -> None:
    with pytest.raises(InvalidConfig, match=r"--engine, --precision: 'onnx float32'.*openvino"):
        parse_pair("onnx float32", "--engine, --precision")


def test_prices() -> None:
    made = plan()
    assert made.price_per_hour == pytest.approx(0.63808)
    assert made.compute_cost == pytest.approx(made.timeline.node_hours * 0.63808)
    assert plan(1_000, 1_800, spot=True).price_per_hour == pytest.approx(0.63808 * 0.45)
    cheap = plan(1_000, 1_800, spot=True, spot_fraction=0.3)
    assert cheap.price_per_hour == pytest.approx(0.63808 * 0.3)
    assert plan(1_000, 1_800, spot=True, price_per_hour=0.2).price_per_hour == 0.2
    assert made.request_cost == pytest.approx(6.44, rel=0.01)
    assert find_instance("c7g.16xlarge", PRICES).on_demand_per_hour == pytest.approx(2.32)
    assert find_instance("C7i.large", PRICES).on_demand_per_hour == pytest.approx(0.08925)


def test_spot_nodes_are_lost_and_the_deadline_is_still_met() -> None:
    made = plan(10_000_000, spot=True)
    assert made.timeline.lost_nodes > 0
    assert made.hours <= 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instance": "m5.large"}, "c7g"),
        ({"instance": "c8g.huge"}, "c8g.4xlarge"),
        ({"instance": "c8g"}, "c8g.4xlarge"),
        ({"instance": "c8g.medium"}, "too few CPUs"),
        ({"instance": "c8g.xlarge", "node_cpus": 8}, "4 vCPUs, fewer than 8"),
        ({"model": "sam"}, "fast, u2net-shaped"),
        ({"pair": BFLOAT16}, r"Graviton4.*no amx_bf16"),
        ({"pair": BFLOAT16, "instance": "c7i.large", "model": "fast"}, "has u2net-shaped for"),
        ({"pair": Pair("openvino", "float16")}, r"not in the profile.*bench-node"),
        ({"deadline_s": 60}, "at least 5 min"),
        ({"deadline_s": 300, "node_start_s": 900}, "more time"),
        # Nothing that takes long is computed before it is refused.
        ({"images": 10**12}, r"1,000,000,000,000 images .* several clusters"),
    ],
)
def test_what_cannot_be_planned(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        plan(**change)


def test_what_cannot_be_planned_is_left_out_of_the_comparisons() -> None:
    request = PlanRequest(70_000_000, 3_600, C7I, "u2net", BFLOAT16, time_factor=1.0)
    engines = compare_engines(request, PROFILE, PRICES)
    assert [each.request.pair for each in engines] == [BFLOAT16]
    c8g = find_instance("c8g.4xlarge", PRICES)
    other = replace(request, instance=c8g, pair=EXACT, time_factor=None)
    families = compare_families(other, PROFILE, PRICES)
    assert [each.request.instance for each in families] == [c8g]


def test_a_refusal_names_the_deadline_that_was_asked_for() -> None:
    request = PlanRequest(60_000_000, 3_600, C7I, "u2net", time_factor=1.0)
    control = PROFILE.control_plane
    stages = choose_stages(request, control, image_times(request, PROFILE))
    # The time of the nodes' start is taken off the deadline.
    with pytest.raises(InvalidConfig, match="within 1 h take"):
        size_run(request, control, stages, 3_200)


def test_the_packaged_profile_has_the_models_that_are_served() -> None:
    profile = read_profile(None)
    for model in ("folio", "u2netp", "u2net", "isnet-general-use"):
        assert profile.segment(model) > profile.segment(model, BFLOAT16) > 0
    # The default model with its true weights.
    assert {"folio", "u2netp"} <= set(profile.segment_s) & set(profile.names(BFLOAT16))
    assert profile.architecture == "x86_64"
    assert profile.method
    assert profile.kernels(BFLOAT16) == ("amx_bf16",)


def test_a_profile_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    with pytest.raises(InvalidConfig, match=r"profile\.json"):
        read_profile(path)
    path.write_text("{")
    with pytest.raises(InvalidConfig):
        read_profile(path)
    path.write_text(json.dumps({"machine": "x"}))
    with pytest.raises(InvalidConfig, match="segment_s"):
        read_profile(path)
    path.write_text(json.dumps({"profile": None}))
    with pytest.raises(InvalidConfig, match="emulated"):
        read_profile(path)
    names = {**PROFILE.model_dump(mode="json"), "other_engines_s": {"tpu int2": {"u2net": 1}}}
    path.write_text(json.dumps(names))
    with pytest.raises(InvalidConfig, match="--profile: 'tpu int2'"):
        compare_engines(plan().request, read_profile(path), PRICES)


def test_what_is_assumed_is_said() -> None:
    made = plan(1_000, 1_800, spot=True, time_factor=None)
    said = "\n".join(plan_notes(made))
    assert "ASSUMED" in said
    assert "random weights" in said
    assert f"as of {PRICES.as_of}; NOT fetched" in said
    given = "\n".join(plan_notes(plan(1_000, 1_800, price_per_hour=1.0, model="fast")))
    assert "ASSUMED" not in given
    assert "NOT fetched" not in given
    assert "random weights" not in given


def test_a_profile_of_another_architecture_is_said() -> None:
    profile = PROFILE.model_copy(
        update={"architecture": "x86_64", "from_elsewhere": {"overhead_s": "assumed"}}
    )
    request = replace(plan(1_000, 1_800).request, time_factor=None)
    said = "\n".join(plan_notes(make_plan(request, profile, PRICES)))
    assert "c8g.4xlarge is aarch64, where onnxruntime runs convolutions with other kernels" in said
    assert "overhead_s, assumed" in said
    same = "\n".join(plan_notes(make_plan(replace(request, instance=C7I), profile, PRICES)))
    assert "other kernels" not in same


def test_a_run_that_is_small_for_its_node_is_told_so() -> None:
    assert "smaller instance" in "\n".join(plan_notes(plan(10_000)))
    assert "smaller instance" not in "\n".join(plan_notes(plan(10_000_000)))


def test_the_tables_fit_a_terminal() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    made, small = plan(), plan(1_000, 1_800)
    families = compare_families(small.request, PROFILE, PRICES)
    engines = compare_engines(replace(small.request, instance=C7I), PROFILE, PRICES)
    print_plan(made, Comparisons(families, engines), console)
    text = console.export_text()
    assert "c7i.4xlarge" in text
    assert "openvino bfloat16" in text
    assert f"{made.nodes} of c8g.4xlarge" in text


def test_the_plot(tmp_path: Path) -> None:
    path = tmp_path / "new" / "plan.png"
    plot_plan(plan(), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.width > 800


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    with pytest.raises(InvalidConfig, match=r"pip install -e '\.\[bench\]'"):
        check_plot_path(tmp_path / "plan.png")


def test_the_command(tmp_path: Path) -> None:
    arguments = ["plan", "--images", "1M", "--deadline", "24h", "--json"]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    made = json.loads(answer.stdout)
    assert made["hours"] <= 24
    assert made["nodes"] >= 1
    assert math.isclose(made["images"], 1e6)
    refused = CliRunner().invoke(app, ["plan", "--images", "many", "--deadline", "24h"])
    assert isinstance(refused.exception, InvalidConfig)
