"""The mask of an image by another engine or precision, computed by whichever CPU runs this.

python -m tests.arm64.engine_mask FOLDER GRAPH ENGINE PRECISION IMAGE writes FOLDER/NAME.npy, uint8
[S, S], and prints the kernels of the convolutions as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from ingest.node.kernels import convolution_kernels
from serve_app.config import ImageLimits, SegmenterConfig
from serve_app.imaging.decode import decode_image
from serve_app.imaging.mask import resize_for_model
from serve_app.imaging.pixels import Pixels
from serve_app.models.engines.network import EVERY_PAIR, Pair
from serve_app.models.engines.opening import open_derived
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.inference import normalize_images, stretch_to_masks
from serve_app.models.registry import BUNDLED_MODEL


def mask_of(graph: bytes, pair: Pair, image: Path) -> Pixels:
    """Return the mask of an image by a derived graph, uint8 [S, S]."""
    facts = MODEL_FACTS[BUNDLED_MODEL]
    network = open_derived(graph, pair, SegmenterConfig(threads=1))
    rgb = decode_image(image.read_bytes(), ImageLimits()).rgb
    tensor = normalize_images(resize_for_model(rgb, facts.size_px)[None], facts)
    mask: Pixels = stretch_to_masks(network.run(tensor), facts)[0]
    return mask


def main(folder: Path, graph: Path, pair: str, image: Path) -> None:
    """Write the mask of an image, and print the kernels."""
    content = graph.read_bytes()
    chosen = next(each for each in EVERY_PAIR if str(each) == pair)
    np.save(folder / f"{image.stem}.npy", mask_of(content, chosen, image))
    print(json.dumps(convolution_kernels(chosen, content)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), " ".join(sys.argv[3:5]), Path(sys.argv[5]))
