"""The mask of an image by OpenVINO in float16, computed by whichever CPU runs this.

python -m tests.arm64.engine_mask FOLDER GRAPH IMAGE writes FOLDER/NAME.npy, uint8 [S, S], and
prints the kernels of the convolutions as JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from serve_app.config import ImageLimits
from serve_app.imaging.decode import decode_image
from serve_app.imaging.mask import resize_for_model
from serve_app.models.engines.openvino_runtime import OpenVinoNetwork
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.inference import normalize_images, stretch_to_masks
from serve_app.models.registry import BUNDLED_MODEL


def write_mask(folder: Path, graph: Path, image: Path) -> None:
    """Write the mask of an image, and print the kernels."""
    facts = MODEL_FACTS[BUNDLED_MODEL]
    network = OpenVinoNetwork(graph, "float16", threads=1)
    rgb = decode_image(image.read_bytes(), ImageLimits()).rgb
    tensor = normalize_images(resize_for_model(rgb, facts.size_px)[None], facts)
    np.save(folder / f"{image.stem}.npy", stretch_to_masks(network.run(tensor), facts)[0])
    print(json.dumps(Counter(network.convolution_kernels())))


if __name__ == "__main__":
    write_mask(*(Path(name) for name in sys.argv[1:]))
