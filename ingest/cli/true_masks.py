"""Scores of cut-outs whose true masks are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from serve_app.models.gate import intersection_over_union


def score_cutouts(cutouts: Path, masks: Path) -> dict[str, float]:
    """Return the intersection over union of each cut-out with its true mask, from 0 to 1.

    Args:
        cutouts: Folder of PNG files with an alpha channel.
        masks: Folder of PNG files of the same names and sizes, uint8 [H, W].

    Returns:
        The scores by the names of the files without their suffix. A cut-out without a mask has
        none, and neither has a mask without a cut-out.
    """
    scores = {}
    for path in sorted(masks.glob("*.png")):
        cutout = cutouts / path.name
        if cutout.is_file():
            with Image.open(cutout) as found, Image.open(path) as truth:
                alpha = np.asarray(found.getchannel("A"))
                scores[path.stem] = intersection_over_union(alpha, np.asarray(truth))
    return scores
