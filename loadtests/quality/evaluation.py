"""The masks of a system, a model with a recipe, compared with true masks and with rembg's."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from PIL import Image

from loadtests.quality.metrics import (
    boundary_f_score,
    mean_absolute_error,
    share_within,
)
from loadtests.quality.sets import TrueImage, read_set
from serve_app.config import AppConfig
from serve_app.contracts.recipe import Recipe, parse_recipe
from serve_app.contracts.rendered import Rendered
from serve_app.imaging.matting import preload_matting
from serve_app.imaging.pixels import Pixels
from serve_app.imaging.threads import disable_library_threads
from serve_app.models.gate import intersection_over_union
from serve_app.models.registry import BUNDLED_MODEL, locate_weights
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.pipeline.segmenters import LocalSegmenters
from serve_app.storage import open_store

RESULTS = Path("out/quality/results")
"""Folder of the cut-outs, one folder for each set and system."""

LEVELS = (2, 8)
"""Grey levels within which masks are compared with rembg's."""

Reference = Callable[[bytes], Pixels]
"""Returns rembg's mask of an image file, uint8 [H, W]."""


@dataclass(frozen=True, slots=True)
class System:
    """Models and a recipe, as a user asks for them."""

    name: str
    """Name of the recipe, for tables."""
    models: tuple[str, ...]
    """Models in order of preference."""
    recipe: dict[str, Any]
    """Fields of the recipe, without its models."""
    compared: int | None = None
    """Number of images that are compared with rembg's, from the first on. None: all."""

    @property
    def title(self) -> str:
        """Models and recipe in one word, for folders."""
        return "-".join([*self.models, self.name.replace(" ", "-")])

    def settings(self) -> dict[str, Any]:
        """Return the settings of an application with these models and one thread."""
        return {
            "models": list(self.models),
            "segmenter": {"threads": 1},
            "pipeline": {"threads": 1},
            "storage": {"local_root": str(RESULTS)},
        }

    def full_recipe(self) -> Recipe:
        """Return the recipe. It accepts an empty mask, which counts as a result like any other."""
        checks = {"min_subject_px": 0, **self.recipe.get("checks", {})}
        return parse_recipe({**self.recipe, "models": list(self.models), "checks": checks})


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one mask."""

    name: str
    """Name of the image."""
    model: str
    """Model that answered."""
    confidence: float
    """Confidence of its mask."""
    iou: float
    """Intersection over union."""
    error: float
    """Mean absolute error."""
    boundary: float
    """Boundary F-score."""
    cpu_s: float
    """CPU seconds from the file to the cut-out's file."""
    within: tuple[float, ...] | None
    """Shares of pixels within ``LEVELS`` of rembg's mask. None if it was not compared."""


def evaluate(folder: Path, system: System) -> list[Score]:
    """Return the scores of a system on a set, and write its cut-outs below ``RESULTS``.

    The images go one by one through the product's own pipeline, in this process and without Ray:
    from the content of the file to the content of the cut-out's file.

    Args:
        folder: Folder of the set.
        system: Models and recipe.
    """
    # A pipeline replica does the same.
    disable_library_threads()
    images = read_set(folder)
    results = RESULTS / folder.name / system.title
    results.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as home:
        reference = None if len(system.models) > 1 else _rembg(system, Path(home))
        return asyncio.run(_score_all(system, images, reference, results))


async def _score_all(
    system: System, images: Sequence[TrueImage], reference: Reference | None, results: Path
) -> list[Score]:
    config, recipe = AppConfig.load(system.settings()), system.full_recipe()
    if recipe.matting.method != "off":
        preload_matting()
    threads = imaging_threads(config.pipeline)
    pipeline = ImagePipeline(config, open_store(config), LocalSegmenters(config, threads), threads)
    # The first image pays for memory and for compiled code.
    await pipeline.cut_out(images[0].data, recipe)
    compared = len(images) if system.compared is None else system.compared
    scores = []
    for number, image in enumerate(images):
        started_s = time.process_time()
        rendered = await pipeline.cut_out(image.data, recipe)
        cpu_s = time.process_time() - started_s
        (results / f"{image.name}.png").write_bytes(rendered.data)
        theirs = reference(image.data) if reference and number < compared else None
        scores.append(_score(image, rendered, cpu_s, theirs))
    return scores


def _score(image: TrueImage, rendered: Rendered, cpu_s: float, theirs: Pixels | None) -> Score:
    alpha = _alpha(Image.open(io.BytesIO(rendered.data)))
    cutout = rendered.cutout
    return Score(
        name=image.name,
        model=cutout.model,
        confidence=cutout.mask_confidence,
        iou=intersection_over_union(alpha, image.mask),
        error=mean_absolute_error(alpha, image.mask),
        boundary=boundary_f_score(alpha, image.mask),
        cpu_s=cpu_s,
        within=None
        if theirs is None
        else tuple(share_within(alpha, theirs, levels) for levels in LEVELS),
    )


def _alpha(cutout: Image.Image) -> Pixels:
    return np.asarray(cutout.getchannel("A"))


def _rembg(system: System, home: Path) -> Reference:
    """Return rembg's own way of the same weights and recipe, in float32.

    Args:
        system: Models and recipe.
        home: Empty folder, which rembg reads the bundled model from.
    """
    # Only here, so that a system without a reference does not load rembg.
    import rembg

    recipe = system.full_recipe()
    (name,) = system.models
    # More threads of two processes than cores would only wait for each other.
    with _environment(OMP_NUM_THREADS="1", **_home_of(name, home)):
        if name == BUNDLED_MODEL:
            session = rembg.new_session("u2net_custom", model_path=str(home / f"{name}.onnx"))
        else:
            session = rembg.new_session(name)
    options = {
        "alpha_matting": recipe.matting.method == "closed_form",
        "post_process_mask": recipe.post_process_mask,
    }

    def mask(data: bytes) -> Pixels:
        found = rembg.remove(Image.open(io.BytesIO(data)), session=session, **options)
        return _alpha(found)

    return mask


def _home_of(name: str, home: Path) -> dict[str, str]:
    """Return the variable of rembg's home for a model. rembg reads no files outside of it."""
    if name != BUNDLED_MODEL:
        return {}
    weights = locate_weights(name, AppConfig.load())
    (home / f"{name}.onnx").write_bytes(weights.path.read_bytes())
    return {"U2NET_HOME": str(home)}


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables within the context."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def weights_precision(path: Path) -> str:
    """Return the type of most of the numbers in an ONNX file, for example ``float32``."""
    sizes: Counter[str] = Counter()
    for tensor in onnx.load(path).graph.initializer:
        kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).name
        sizes[kind] += int(np.prod(tensor.dims))
    return sizes.most_common(1)[0][0]
