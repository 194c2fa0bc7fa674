"""What the endpoint says of the engine and precision that serve a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve_app.config import AppConfig
from serve_app.models.engines.network import GATED, INT8
from serve_app.models.engines.processor import this_machine, why_not_runnable
from serve_app.models.engines.records import derived_folder
from serve_app.models.graph_folding import read_folded
from serve_app.models.registry import locate_weights
from tests.support.gated import change_record, cut, gated
from tests.support.http_client import endpoint_client, local_pipeline
from tests.support.images import book, jpeg

KEY = "a-key-of-this-test"


def config_of(home: Path, **settings: Any) -> AppConfig:
    return AppConfig.load({"models": ["folio"], "u2net_home": home, **settings})


async def answers(config: AppConfig, headers: dict[str, str] | None = None) -> dict[str, Any]:
    async with endpoint_client(config, local_pipeline(config), headers=headers or {}) as client:
        ready = await client.get("/readyz")
        models = await client.get("/v1/models", headers={"X-API-Key": KEY})
        cutout = await client.post(
            "/v1/cutout",
            content=jpeg(book().image),
            headers={"Content-Type": "image/jpeg", "X-API-Key": KEY},
        )
    assert (ready.status_code, models.status_code, cutout.status_code) == (200, 200, 200)
    return {
        "ready": ready.json(),
        "model": models.json()["models"][0],
        "etag": cutout.headers["etag"],
    }


async def test_the_default_is_named_and_nothing_is_refused(tmp_path: Path) -> None:
    found = await answers(config_of(tmp_path))
    assert found["ready"] == {"status": "ready", "models": ["folio"]}
    assert (found["model"]["engine"], found["model"]["precision"]) == ("onnxruntime", "float32")
    assert found["model"]["refused"] is None


async def test_another_engine_makes_other_results(tmp_path: Path) -> None:
    default = await answers(config_of(tmp_path))
    other = await answers(config_of(tmp_path, segmenter={"engine": "openvino"}))
    assert other["model"]["engine"] == "openvino"
    assert other["model"]["chosen_because"] == "It is configured."
    assert other["etag"] != default["etag"]


async def test_float32_serves_what_has_not_passed_the_gate_and_readyz_says_so(
    tmp_path: Path,
) -> None:
    asked = {"engine": "openvino", "precision": "float16"}
    found = await answers(config_of(tmp_path, segmenter=asked))
    reason = found["ready"]["refused"]["folio"]
    assert "openvino float16 does not serve" in reason
    assert found["model"]["refused"] == reason
    assert (found["model"]["engine"], found["model"]["precision"]) == ("onnxruntime", "float32")
    # The results are those of float32, and so are their names.
    assert found["etag"] == (await answers(config_of(tmp_path)))["etag"]


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "damaged": (cut, "is damaged"),
    "of another source": (change_record(source_sha256="0" * 64), "is of another source"),
    "of another version": (change_record(engine_version="0.1"), "is of another version"),
}


@pytest.mark.parametrize("how", SPOILED)
async def test_float32_serves_instead_of_a_spoiled_file_and_readyz_says_so(
    how: str, tmp_path: Path
) -> None:
    machine = this_machine()
    runnable = [each for each in (*GATED, INT8) if why_not_runnable(each, machine) is None]
    if not runnable:
        pytest.skip("this processor runs no other precision")
    pair = runnable[0]
    asked = {"engine": pair.engine, "precision": pair.precision}
    config = config_of(tmp_path, segmenter=asked)
    weights = locate_weights("folio", config)
    folded = read_folded(weights.path, batches=False)
    assert folded is not None
    graph = folded.SerializeToString()
    derived = gated(weights, derived_folder(config), pair=pair, machine=machine, graph=graph)
    whole = await answers(config)
    assert (whole["model"]["precision"], whole["model"]["refused"]) == (pair.precision, None)
    spoil, reason = SPOILED[how]
    spoil(derived)
    found = await answers(config)
    assert f"{pair} does not serve" in found["ready"]["refused"]["folio"]
    assert reason in found["ready"]["refused"]["folio"]
    assert (found["model"]["engine"], found["model"]["precision"]) == ("onnxruntime", "float32")
    assert found["etag"] == (await answers(config_of(tmp_path)))["etag"] != whole["etag"]


@pytest.mark.parametrize(("headers", "told"), [({}, False), ({"X-API-Key": KEY}, True)])
async def test_strangers_learn_nothing_about_the_machine(
    headers: dict[str, str], told: bool, tmp_path: Path
) -> None:
    asked = {"engine": "openvino", "precision": "float16"}
    config = config_of(tmp_path, segmenter=asked, http={"api_keys": KEY})
    found = await answers(config, headers)
    assert ("refused" in found["ready"]) == told
