"""Let another model label photographs: ``python -m serve_app.models.folio.training.teacher``.

It writes random parts of each photograph as pairs (``pairs``). The mask is the teacher's answer as
it is, not stretched to black and white. folio thus learns to hesitate if the teacher hesitates, and
to find nothing if the teacher finds nothing. Subjects of which the teacher is sure are also written
as cut-outs, for composites over other backgrounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import onnxruntime as ort
import typer
from rich.console import Console
from rich.progress import track

from serve_app.imaging.mask import mask_confidence, subject_pixels
from serve_app.models.facts import ModelFacts
from serve_app.models.folio.synthetic.surfaces import Pixels
from serve_app.models.folio.training.composites import crop_background, load_backgrounds
from serve_app.models.folio.training.pairs import SIDE_PX, write_pair
from serve_app.models.inference import normalize_images

_SURE_FROM = 0.93
"""Least confidence of a mask that becomes a cut-out."""
_LARGEST_SHARE = 0.97
"""Least share of a subject that is one piece."""
_CUT_OUT_SHARES = (0.03, 0.5)
"""Smallest and largest share of a photograph that the subject of a cut-out covers."""


def label(session: ort.InferenceSession, image: Pixels) -> Pixels:
    """Return a teacher's mask, uint8 [S, S], of an image, uint8 [S, S, 3], RGB, as it answers it.

    Args:
        session: Model with u2net's input, whose first output is 0 to 1.
        image: Image of the size of the model's input.
    """
    taken = session.get_inputs()[0].name
    answer = session.run(None, {taken: normalize_images(image[None], ModelFacts(SIDE_PX))})[0]
    levels = np.rint(np.clip(np.asarray(answer)[0, 0], 0, 1) * 255)
    return np.asarray(levels, np.uint8)


def is_cut_out(mask: Pixels) -> bool:
    """Return whether a mask, uint8 [S, S], is of one whole subject that the teacher is sure of."""
    subject = subject_pixels(mask)
    statistics = cv2.connectedComponentsWithStats(subject)[2]
    largest = int(statistics[1:, cv2.CC_STAT_AREA].max(initial=0))
    covered = int(np.count_nonzero(subject))
    smallest, widest = (share * subject.size for share in _CUT_OUT_SHARES)
    # A subject that stands on the lower border of its photograph is still whole.
    cut_off = bool(subject[0].any() or subject[:, 0].any() or subject[:, -1].any())
    whole = largest >= _LARGEST_SHARE * covered and not cut_off
    return smallest <= covered <= widest and whole and mask_confidence(mask) >= _SURE_FROM


def label_photographs(
    model: Annotated[Path, typer.Option(help="ONNX file of the teacher, such as u2netp.onnx.")],
    photographs: Annotated[list[Path], typer.Option(help="Folder of JPEG and PNG files.")],
    out: Annotated[Path, typer.Option(help="Folder of the pairs to write.")],
    cut_outs: Annotated[Path, typer.Option(help="Folder of the cut-outs to write.")],
    parts: Annotated[int, typer.Option(min=0, help="Random parts of each photograph.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the parts.")] = 0,
) -> None:
    """Write photographs with a teacher's masks as samples of the training."""
    console, rng = Console(), np.random.default_rng(seed)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for folder in (out, cut_outs):
        folder.mkdir(parents=True, exist_ok=True)
    written = 0
    taken = [each for folder in photographs for each in load_backgrounds(folder)]
    for number, photograph in enumerate(track(taken, "Labelling", console=console)):
        square = (SIDE_PX, SIDE_PX)
        whole = np.asarray(cv2.resize(photograph, square, interpolation=cv2.INTER_AREA), np.uint8)
        mask = label(session, whole)
        write_pair(out / f"{number:04d}.jpg", whole, mask)
        if is_cut_out(mask):
            written += 1
            _write_cut_out(cut_outs / f"{number:04d}.png", photograph, mask)
        for part in range(parts):
            image = crop_background(rng, photograph, SIDE_PX, float(rng.uniform(0.7, 1.4)))
            write_pair(out / f"{number:04d}-{part}.jpg", image, label(session, image))
    console.print(f"{len(taken)} photographs, {written} cut-outs")


def _write_cut_out(path: Path, photograph: Pixels, mask: Pixels) -> None:
    size = photograph.shape[1::-1]
    alpha = np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    cut_out = cv2.merge([cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR), alpha])
    if not cv2.imwrite(str(path), cut_out):
        raise OSError(f"{path} cannot be written")


if __name__ == "__main__":
    typer.run(label_photographs)
