"""Which of a recipe's models answers, with real graphs and files, and without Ray."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from serve_app.config import AppConfig
from serve_app.contracts.recipe import parse_recipe
from serve_app.contracts.rendered import Rendered
from serve_app.errors import NoSubject
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.pipeline.segmenters import LocalSegmenters
from serve_app.storage import open_store
from tests.support import graphs


@pytest.fixture
def pipeline(tmp_path: Path) -> ImagePipeline:
    """Return a pipeline with ``unsure``, which sees only red, and ``sure``, which sees green."""
    files = {
        "unsure": str(graphs.channel(tmp_path / "unsure.onnx", 0)),
        "sure": str(graphs.channel(tmp_path / "sure.onnx", 1)),
    }
    # A local store, since a client of S3 takes longer to make than these images.
    storage = {"storage.local_root": str(tmp_path)}
    config = AppConfig.load({"models": list(files), "model_files": files, **storage})
    threads = imaging_threads(config.pipeline)
    return ImagePipeline(config, open_store(config), LocalSegmenters(config, threads), threads)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def scene() -> bytes:
    """Return an image with a ramp in red, and a square with a soft edge in green."""
    pixels = np.zeros((400, 400, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, 400)
    pixels[90:310, 90:310, 1] = 120
    pixels[100:300, 100:300, 1] = 255
    return png(pixels)


async def cut_out(pipeline: ImagePipeline, image: bytes, **recipe: Any) -> Rendered:
    recipe = {"mask_only": True, **recipe}
    return await pipeline.cut_out(image, parse_recipe(recipe))


@pytest.mark.parametrize(
    ("models", "least", "answers"),
    [
        (["unsure", "sure"], None, "unsure"),
        (["unsure", "sure"], 0.5, "sure"),
        (["sure", "unsure"], 0.5, "sure"),
        # The last model answers whatever its confidence is.
        (["sure", "unsure"], 1, "unsure"),
        (["unsure"], 0.9, "unsure"),
        ([], 0.5, "sure"),
    ],
)
async def test_the_first_sure_model_answers(
    pipeline: ImagePipeline, models: list[str], least: float | None, answers: str
) -> None:
    checks = {} if least is None else {"min_confidence": least}
    result = await cut_out(pipeline, scene(), models=models, checks=checks)
    assert result.cutout.model == answers
    expected = {"unsure": 0.11, "sure": 200**2 / 220**2}[answers]
    assert result.cutout.mask_confidence == pytest.approx(expected, abs=0.02)


async def test_the_result_is_that_of_the_answering_model_alone(pipeline: ImagePipeline) -> None:
    cascade = await cut_out(
        pipeline, scene(), models=["unsure", "sure"], checks={"min_confidence": 0.9}
    )
    alone = await cut_out(pipeline, scene(), models=["sure"])
    assert cascade.data == alone.data
    assert cascade.cutout.mask_confidence == alone.cutout.mask_confidence


async def test_other_checks_hold_for_a_sure_model_too(pipeline: ImagePipeline) -> None:
    # ``sure`` finds a square that is too small, and ``unsure`` half of the image.
    checks = {"min_confidence": 0.5, "min_subject_area": 0.4}
    result = await cut_out(pipeline, scene(), models=["sure", "unsure"], checks=checks)
    assert result.cutout.model == "unsure"


async def test_the_last_model_must_pass_the_other_checks(pipeline: ImagePipeline) -> None:
    black = png(np.zeros((400, 400, 3), np.uint8))
    with pytest.raises(NoSubject, match="sure found no subject"):
        await cut_out(pipeline, black, models=["unsure", "sure"], checks={"min_confidence": 0.5})
