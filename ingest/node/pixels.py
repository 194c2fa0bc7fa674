"""The CPU time of everything but the model: from the bytes of a JPEG image to those of a PNG."""

from __future__ import annotations

import io
import statistics
import time

import numpy as np
from PIL import Image

from serve_app.config import ImageLimits
from serve_app.contracts.recipe import Checks, Recipe
from serve_app.imaging.compose import compose_cutout
from serve_app.imaging.decode import decode_image
from serve_app.imaging.encode import encode_image
from serve_app.imaging.mask import resize_for_model, resize_mask
from serve_app.imaging.pixels import Pixels
from serve_app.models.folio.synthetic.photograph import draw_photograph

WIDTH, HEIGHT = 1600, 1200

_JPEG_QUALITY = 92
_SEED = 310_000
"""Seed of the drawn image, which no other set uses."""
_RECIPE = Recipe(checks=Checks(min_subject_px=0))


def measure_pixels_s(size_px: int, runs: int) -> float:
    """Return the CPU seconds of this thread to decode, resize, compose and encode an image.

    Args:
        size_px: Side of the square that the model takes, in pixels.
        runs: Number of runs, of which the median counts.
    """
    drawn = draw_photograph(_SEED, width=WIDTH, height=HEIGHT, kind="book")
    encoded = io.BytesIO()
    Image.fromarray(drawn.image).save(encoded, "JPEG", quality=_JPEG_QUALITY)
    answer = np.asarray(Image.fromarray(drawn.mask).resize((size_px, size_px)))
    # The first run takes memory from the system.
    return statistics.median([_cut_out_s(encoded.getvalue(), answer) for _ in range(runs + 1)][1:])


def _cut_out_s(data: bytes, answer: Pixels) -> float:
    """Return the CPU seconds from the image to its cut-out, with a mask that is there already."""
    started_s = time.thread_time()
    image = decode_image(data, ImageLimits())
    resize_for_model(image.rgb, len(answer))
    alpha = resize_mask(answer, image.width, image.height)
    encode_image(compose_cutout(image.rgb, alpha, None, _RECIPE), _RECIPE)
    return time.thread_time() - started_s
