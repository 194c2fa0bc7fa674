"""Labels of another model: here folio itself, whose input and output are u2net's."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.folio.training.composites import load_cut_outs
from serve_app.models.folio.training.pairs import find_pairs, read_pair
from serve_app.models.folio.training.teacher import is_cut_out, label, label_photographs
from serve_app.models.gate import intersection_over_union

FOLIO = Path(str(files("serve_app.models.folio") / "folio.onnx"))


def disc(radius: int, centre: tuple[int, int] = (160, 160)) -> npt.NDArray[np.uint8]:
    mask = np.zeros((320, 320), np.uint8)
    return np.asarray(cv2.circle(mask, centre, radius, 255, -1, cv2.LINE_AA), np.uint8)


def test_a_label_is_the_models_answer_and_is_not_stretched() -> None:
    session = ort.InferenceSession(FOLIO)
    book = draw_photograph(500_001, kind="book")
    assert intersection_over_union(label(session, book.image), book.mask) > 0.9
    # A stretched mask would reach 255 everywhere, even without a subject.
    assert label(session, np.full((320, 320, 3), 128, np.uint8)).max() < 128


@pytest.mark.parametrize(
    ("mask", "taken"),
    [
        (disc(60), True),
        (disc(10), False),
        (disc(150), False),
        (disc(60, (20, 160)), False),
        (cv2.max(disc(40, (80, 160)), disc(40, (240, 160))), False),
        (np.asarray(disc(60) * 0.6, np.uint8), False),
        (np.zeros((320, 320), np.uint8), False),
    ],
    ids=["whole", "tiny", "huge", "cut off", "two", "unsure", "empty"],
)
def test_only_one_whole_subject_becomes_a_cut_out(mask: npt.NDArray[np.uint8], taken: bool) -> None:
    assert is_cut_out(mask) is taken


def test_photographs_become_pairs_and_cut_outs(tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    taken = [draw_photograph(500_000 + i, width=480, height=360, kind="book") for i in range(4)]
    for number, each in enumerate(taken):
        bgr = cv2.cvtColor(each.image, cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(photographs / f"{number}.png"), bgr)
    pairs, cut_outs = tmp_path / "pairs", tmp_path / "cut-outs"
    label_photographs(FOLIO, [photographs], pairs, cut_outs, parts=2)
    found = find_pairs(pairs)
    assert len(found) == 4 * 3
    wanted = [np.asarray(cv2.resize(each.mask, (320, 320)), np.uint8) for each in taken]
    masks = [read_pair(pairs / f"{number:04d}.jpg")[1] for number in range(len(taken))]
    # A teacher may err on one of them. A mask of another photograph would be far off.
    right = [
        intersection_over_union(mask, truth) for mask, truth in zip(masks, wanted, strict=True)
    ]
    assert min(right) > 0.8
    assert np.mean(right) > 0.95
    whole = load_cut_outs([cut_outs])
    assert whole
    assert all((each.alpha == 255).any() for each in whole)
