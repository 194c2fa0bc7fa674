"""Masks and mattes compared with rembg's in one process: ``python -m loadtests.peers.masks``.

Each image goes through Foreedge's steps and through rembg's, with the same weights and without a
server. For comparison, rembg's own masks with and without ONNX Runtime's optimizations are compared
too: they show how much the order of float32 sums changes by itself. With ``--write-docs`` the worst
of each goes into docs/rembg.md.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import rembg
from PIL import Image
from rembg.bg import alpha_matting_cutout

from loadtests.harness.results import write_between_markers
from loadtests.peers.real_images import composites, demonstration_images, images_of
from serve_app.config import AppConfig
from serve_app.contracts.recipe import Matting
from serve_app.errors import ForeedgeError
from serve_app.imaging.decode import decode_image
from serve_app.imaging.mask import post_process_mask, resize_for_model, resize_mask
from serve_app.imaging.matting import matte
from serve_app.imaging.pixels import Pixels
from serve_app.models.inference import load_model
from serve_app.models.registry import locate_weights

DOCS = Path("docs/rembg.md")

_MODEL = "u2netp"
_IMAGES = 20
_OURS, _UNOPTIMIZED = "Foreedge", "rembg without ONNX Runtime's optimizations"

_MATTING = Matting(method="closed_form")


@dataclass(frozen=True, slots=True)
class Masks:
    """What an image's mask is, and what closed-form matting makes of it."""

    mask: Pixels
    """Mask at full size, uint8 [H, W]."""
    alpha: Pixels
    """Transparency after matting, uint8 [H, W]."""


MasksOf = Callable[[bytes], Masks]
"""Returns the masks of an image file."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference between two masks of an image."""

    levels: int
    """Largest difference, in levels."""
    share: float
    """Share of the pixels that differ."""
    turned_share: float
    """Share of the pixels that differ after post-processing, by 255 levels."""
    matted_mean: float
    """Mean difference of the transparency after matting, 0 to 1."""


def compare_masks(masks: Masks, others: Masks) -> Difference:
    """Return the difference between what two programs made of an image."""
    difference = np.abs(masks.mask.astype(int) - others.mask)
    turned = post_process_mask(masks.mask) != post_process_mask(others.mask)
    matted = np.abs(masks.alpha.astype(int) - others.alpha)
    return Difference(
        int(difference.max()),
        float((difference > 0).mean()),
        float(turned.mean()),
        float(matted.mean()) / 255,
    )


def rembg_masks(weights: Path, level: ort.GraphOptimizationLevel) -> MasksOf:
    """Return rembg's function from an image to its masks.

    Args:
        weights: ONNX file inside of rembg's home.
        level: ONNX Runtime's optimizations.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session: Any = rembg.new_session("u2net_custom", model_path=str(weights))
    session.inner_session = ort.InferenceSession(
        weights, options, providers=["CPUExecutionProvider"]
    )

    def masks_of(data: bytes) -> Masks:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        mask = session.predict(image)[0]
        cutout = alpha_matting_cutout(
            image,
            mask,
            _MATTING.foreground_above,
            _MATTING.background_below,
            _MATTING.erode_px,
        )
        return Masks(np.asarray(mask, np.uint8), np.asarray(cutout.getchannel("A"), np.uint8))

    return masks_of


def foreedge_masks(weights: Path) -> MasksOf:
    """Return Foreedge's function from an image to its masks."""
    config = AppConfig.load({"models": [_MODEL], "model_files": {_MODEL: str(weights)}})
    model = load_model(_MODEL, config)

    def masks_of(data: bytes) -> Masks:
        image = decode_image(data, config.limits)
        square = resize_for_model(image.rgb, model.size_px)
        mask = resize_mask(model.masks(square[None])[0], image.width, image.height)
        matted = matte(image.rgb, mask, _MATTING, config.pipeline.matting_max_pixels)
        return Masks(mask, matted.alpha)

    return masks_of


def worst(differences: list[Difference]) -> list[str]:
    """Return the cells of the worst differences."""
    return [
        f"{max(each.levels for each in differences)}",
        f"{max(each.share for each in differences):.3%}",
        f"{max(each.turned_share for each in differences):.4%}",
        f"{max(each.matted_mean for each in differences):.5f}",
    ]


def main() -> None:
    """Compare the masks of all images, and print the worst differences."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.peers.masks",
        description="Compare masks of true u2netp with rembg's, without a server.",
    )
    add = parser.add_argument
    folder = "folder of JPEG files, repeatable (default: the demonstration's, and Debian's)"
    add("--images", type=Path, action="append", metavar="FOLDER", help=folder)
    add("--count", type=int, default=_IMAGES, help=f"number of images (default: {_IMAGES})")
    add("--write-docs", action="store_true", help=f"write the table into {DOCS}")
    options = parser.parse_args()
    if options.images:
        images = images_of(options.images, options.count)
    else:
        images = demonstration_images()
        images |= composites(options.count - len(images))
    with tempfile.TemporaryDirectory() as home:
        # rembg reads files only inside its home.
        weights = Path(shutil.copy(locate_weights(_MODEL, AppConfig.load()).path, home))
        os.environ["U2NET_HOME"] = home
        all_levels = ort.GraphOptimizationLevel
        expected = rembg_masks(weights, all_levels.ORT_ENABLE_ALL)
        contenders = {
            _OURS: foreedge_masks(weights),
            _UNOPTIMIZED: rembg_masks(weights, all_levels.ORT_DISABLE_ALL),
        }
        found: dict[str, list[Difference]] = {name: [] for name in contenders}
        for name, data in images.items():
            masks = expected(data)
            for contender, masks_of in contenders.items():
                found[contender].append(compare_masks(masks_of(data), masks))
            print(name, found[_OURS][-1], flush=True)
    lines = [
        "| | largest difference, levels | pixels that differ at all | pixels that `ppm` turns |"
        " mean difference after matting |",
        "|---|---:|---:|---:|---:|",
        *(f"| {name} | {' | '.join(worst(each))} |" for name, each in found.items()),
        "",
        f"`python -m loadtests.peers.masks`, the worst of {len(images)} real images.",
    ]
    print("\n".join(lines))
    if options.write_docs:
        write_between_markers(DOCS, "masks", "\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except ForeedgeError as error:
        sys.exit(f"error: {error.code}: {error.message}")
