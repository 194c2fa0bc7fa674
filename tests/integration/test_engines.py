"""Engines and precisions on true weights: what the gate lets through, and that verdicts stay."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from PIL import Image

from ingest.cli.gate import bundled_images
from loadtests.quality.naive import minmax_int8, plain_bfloat16
from serve_app.config import AppConfig, SegmenterConfig
from serve_app.contracts.recipe import Recipe
from serve_app.errors import ForeedgeError
from serve_app.models.derive import compare_with_rembg, derive_graph, pass_gate, record_of
from serve_app.models.engines.network import EXACT, GATED, INT8, Pair
from serve_app.models.engines.onnx_runtime import OnnxRuntimeNetwork, session_options
from serve_app.models.engines.openvino_runtime import OpenVinoNetwork
from serve_app.models.engines.processor import pairs_by_speed, this_machine, why_not_runnable
from serve_app.models.engines.records import derived_folder, derived_path, write_derived
from serve_app.models.engines.shipped import find_shipped
from serve_app.models.gate_images import BUNDLED_SET, GateImage, SmallImage, shrink_images
from serve_app.models.inference import load_model
from serve_app.models.quantization.quantize import calibrate_graph
from serve_app.models.registry import Weights, locate_weights
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.pipeline.segmenters import LocalSegmenters
from serve_app.storage import open_store
from tests.support.gated import CLOSE
from tests.support.images import flat

BFLOAT16 = Pair("openvino", "bfloat16")
FLOAT16 = Pair("openvino", "float16")
FOREEDGE = Path(sys.executable).parent / "foreedge"


@pytest.fixture(scope="module")
def home(u2netp_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of weights of this module, since derived files go there."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copyfile(u2netp_weights, folder / "u2netp.onnx")
    return folder


def config_of(home: Path, **segmenter: Any) -> AppConfig:
    settings = {"models": ["u2netp"], "u2net_home": home, "segmenter": segmenter}
    return AppConfig.load({**settings, "storage": {"local_root": str(home)}})


@pytest.fixture(scope="module")
def weights(home: Path) -> Weights:
    return locate_weights("u2netp", config_of(home))


@pytest.fixture(scope="module")
def images() -> list[GateImage]:
    """Return every fourth image of the gate: drawn ones and real ones."""
    return bundled_images()[::4]


@pytest.fixture(scope="module")
def small(weights: Weights, images: list[GateImage]) -> list[SmallImage]:
    """Return what the model needs of these images."""
    return list(shrink_images(images, weights.facts.size_px))


@pytest.fixture(scope="module")
def gated(home: Path, weights: Weights, small: list[SmallImage]) -> list[Pair]:
    """Write the files of every pair that runs here, and return these pairs."""
    machine, found = this_machine(), []
    for pair in (BFLOAT16, FLOAT16):
        if why_not_runnable(pair, machine) is None:
            graph = derive_graph(weights, [small[0].square])
            record = pass_gate(weights, pair, graph, small[::2], image_set="a few", machine=machine)
            path = derived_path(derived_folder(config_of(home)), weights.name, pair)
            write_derived(path, graph.content, record)
            found.append(pair)
    return found


def need(pair: Pair) -> None:
    reason = why_not_runnable(pair, this_machine())
    if reason is not None:
        pytest.skip(reason)


def need_any() -> Pair:
    """Return a pair that needs a gate and runs here."""
    for pair in (BFLOAT16, FLOAT16):
        if why_not_runnable(pair, this_machine()) is None:
            return pair
    pytest.skip("this processor runs no precision of OpenVINO")


def test_two_channels_are_taken_out_and_float32_stays(
    weights: Weights, small: list[SmallImage]
) -> None:
    derived = derive_graph(weights, [small[0].square])
    assert len(derived.taken) == 2
    session = ort.InferenceSession(derived.content, session_options(SegmenterConfig(threads=1)))
    (found,) = compare_with_rembg(weights, [OnnxRuntimeNetwork(session)], small[1::3])
    assert found.within_2 == 1
    assert found.difference < 0.01


def test_the_gate_refuses_plain_bfloat16_and_lets_the_rewritten_graph_through(
    weights: Weights, small: list[SmallImage]
) -> None:
    need(BFLOAT16)
    plain = plain_bfloat16(weights)
    graph = derive_graph(weights, [small[0].square]).content
    rewritten = OpenVinoNetwork(graph, "bfloat16", threads=1)
    naive, found = compare_with_rembg(weights, [plain, rewritten], small)
    assert naive.reached() is None
    assert found.failures("fast") == []
    # What rounds so much must not pass for rembg's own masks.
    assert found.failures("exact") != []


def test_float16_reaches_exact_with_the_rewritten_graph(
    weights: Weights, small: list[SmallImage]
) -> None:
    need(FLOAT16)
    graph = derive_graph(weights, [small[0].square]).content
    rewritten = OpenVinoNetwork(graph, "float16", threads=1)
    (found,) = compare_with_rembg(weights, [rewritten], small)
    assert found.reached() == "exact"


def test_the_gate_refuses_a_naive_int8(weights: Weights, small: list[SmallImage]) -> None:
    naive = minmax_int8(weights, small[:2])
    (found,) = compare_with_rembg(weights, [naive], small[::2])
    assert found.reached() is None
    assert len(found.failures("fast")) >= 2


def verdicts(config: AppConfig, files: dict[str, bytes]) -> dict[str, str]:
    """Return, for each file, the size and the subject of the cut-out, or the error's code."""
    threads = imaging_threads(config.pipeline)
    pipeline = ImagePipeline(config, open_store(config), LocalSegmenters(config, threads), threads)

    async def verdict(data: bytes) -> str:
        try:
            rendered = await pipeline.cut_out(data, Recipe(mask_only=True))
        except ForeedgeError as error:
            return error.code
        with Image.open(io.BytesIO(rendered.data)) as cutout:
            return f"{cutout.width} x {cutout.height}"

    async def all_verdicts() -> dict[str, str]:
        return {name: await verdict(data) for name, data in files.items()}

    return asyncio.run(all_verdicts())


def large_and_small_files(images: list[GateImage]) -> dict[str, bytes]:
    """Return images of 8,000 x 6,000 pixels, of one, and of a line, by their names."""
    large = Image.fromarray(images[-1].rgb).resize((8000, 6000))
    data = io.BytesIO()
    large.save(data, "JPEG", quality=60)
    return {
        "large": data.getvalue(),
        "pixel": flat(1, 1),
        "line": flat(1, 400),
        "row": flat(400, 1),
        "white": flat(64, 64),
    }


def test_the_largest_and_the_smallest_images_get_the_same_verdicts(
    home: Path, gated: list[Pair], images: list[GateImage]
) -> None:
    files = large_and_small_files(images)
    expected = verdicts(config_of(home), files)
    assert expected["large"] == "8000 x 6000"
    for pair in (Pair("openvino", "float32"), *gated):
        config = config_of(home, engine=pair.engine, precision=pair.precision)
        assert load_model("u2netp", config).choice.pair == pair
        assert verdicts(config, files) == expected, pair


def test_the_largest_and_the_smallest_images_get_the_same_verdicts_in_int8(
    images: list[GateImage], tmp_path: Path
) -> None:
    need(INT8)
    default, config = (
        AppConfig.load(
            {
                "models": ["folio"],
                "u2net_home": tmp_path,
                "segmenter": segmenter,
                "storage": {"local_root": str(tmp_path)},
            }
        )
        for segmenter in ({}, {"precision": "int8"})
    )
    folio = locate_weights("folio", config)
    squares = [each.square for each in shrink_images(images[:2], folio.facts.size_px)]
    graph = calibrate_graph(folio, squares).graph()
    record = record_of(folio, INT8, graph, this_machine(), "a few", CLOSE)
    write_derived(derived_path(derived_folder(config), "folio", INT8), graph.content, record)
    assert load_model("folio", config).choice.pair == INT8
    files = large_and_small_files(images)
    assert verdicts(config, files) == verdicts(default, files)


def test_auto_serves_the_fastest_pair_with_the_accuracy(home: Path, gated: list[Pair]) -> None:
    fastest = next((pair for pair in pairs_by_speed(this_machine()) if pair in gated), EXACT)
    model = load_model("u2netp", config_of(home, engine="auto", accuracy="fast"))
    assert (model.choice.pair, model.choice.refused) == (fastest, None)
    exact = load_model("u2netp", config_of(home, engine="auto"))
    assert exact.choice.pair == (FLOAT16 if fastest == FLOAT16 else EXACT)


def test_the_command_writes_what_a_replica_serves(
    u2netp_weights: Path, images: list[GateImage], tmp_path: Path
) -> None:
    pair = need_any()
    home, folder = tmp_path / "home", tmp_path / "images"
    home.mkdir()
    folder.mkdir()
    shutil.copyfile(u2netp_weights, home / "u2netp.onnx")
    for image in images[:3]:
        Image.fromarray(image.rgb).save(folder / f"{image.name}.png")
        truth = image.read_truth()
        assert truth is not None
        Image.fromarray(truth).save(folder / f"{image.name}.mask.png")
    command = [str(FOREEDGE), "models", "gate", "u2netp", "--precision", pair.precision, "--json"]
    done = subprocess.run(
        [*command, "--images", str(folder)],
        env={**os.environ, "U2NET_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["measures"]["images"] == 3
    assert report["measures"]["true_iou_loss"] != 0
    assert report["reached"] is not None
    config = config_of(home, engine=pair.engine, precision=pair.precision)
    model = load_model("u2netp", config)
    assert str(model.choice.derived) == report["path"]
    assert model.choice.pair == pair
    # A byte of the file is lost: float32 serves, and says why.
    path = Path(report["path"])
    path.write_bytes(path.read_bytes()[:-1])
    model = load_model("u2netp", config)
    assert model.choice.pair == EXACT
    assert "is damaged" in str(model.choice.refused)


def test_without_images_the_bundled_ones_or_the_shipped_record_count(tmp_path: Path) -> None:
    machine = this_machine()
    pairs = [pair for pair in pairs_by_speed(machine) if pair in GATED]
    if not pairs:
        pytest.skip("this processor runs no precision of OpenVINO faster than float32")
    command = [str(FOREEDGE), "models", "gate", "folio", "--json"]
    done = subprocess.run(
        command,
        env={**os.environ, "U2NET_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    config = AppConfig.load(
        {
            "models": ["folio"],
            "u2net_home": tmp_path,
            "segmenter": {"engine": "auto", "accuracy": report["reached"]},
        }
    )
    folio = locate_weights("folio", config)
    shipped = find_shipped(folio, pairs[0], report["derived_sha256"], machine)
    image_set, count = (
        (shipped.image_set, shipped.measures.images) if shipped else (BUNDLED_SET, 24)
    )
    assert (report["image_set"], report["measures"]["images"]) == (image_set, count)
    choice = load_model("folio", config).choice
    assert (choice.pair, choice.derived_sha256) == (pairs[0], report["derived_sha256"])


def test_a_record_of_other_images_is_not_replaced_without_a_word(
    images: list[GateImage], tmp_path: Path
) -> None:
    pair = need_any()
    replaced = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        Image.fromarray(images[1].rgb).save(folder / "own.png")
        done = subprocess.run(
            [
                *(str(FOREEDGE), "models", "gate", "folio", "--precision", pair.precision),
                *("--images", str(folder), "--json"),
            ],
            env={**os.environ, "U2NET_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.stdout, done.stderr
        replaced.append(json.loads(done.stdout)["replaced"])
    assert replaced == [None, f"the images of {tmp_path / 'first'}"]
