"""The cut-outs of images as pixels, computed by whichever CPU runs this.

python -m tests.arm64.cutouts FOLDER IMAGE... writes FOLDER/NAME.npy for each, uint8 [H, W, 4].
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from serve_app.config import AppConfig
from serve_app.contracts.recipe import Recipe
from serve_app.imaging.decode import decode_image
from serve_app.imaging.mask import resize_for_model
from serve_app.models.inference import load_model
from serve_app.models.registry import BUNDLED_MODEL
from serve_app.pipeline.steps import StageTimer, find_subject, render_cutout


def write_cutouts(folder: Path, images: list[Path]) -> None:
    """Write the pixels of the cut-out of each image."""
    config, recipe = AppConfig(), Recipe()
    model = load_model(BUNDLED_MODEL, config)
    for path in images:
        timer = StageTimer()
        image = decode_image(path.read_bytes(), config.limits)
        mask = model.masks(resize_for_model(image.rgb, model.size_px)[None])[0]
        subject = find_subject(image, mask, recipe, BUNDLED_MODEL, timer)
        with Image.open(io.BytesIO(render_cutout(subject, recipe, timer).data)) as cutout:
            np.save(folder / f"{path.stem}.npy", np.asarray(cutout.convert("RGBA")))


if __name__ == "__main__":
    write_cutouts(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
