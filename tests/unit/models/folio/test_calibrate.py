"""Scales of folio's logits."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from serve_app.models.facts import MODEL_FACTS
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.folio.training.calibrate import (
    Calibration,
    calibrate,
    choose,
    measure,
    scale_answers,
    scale_logits,
)
from serve_app.models.folio.training.pairs import write_pair
from serve_app.models.inference import normalize_images

FOLIO = Path(str(files("serve_app.models.folio") / "folio.onnx"))


def answer(model: Path | bytes) -> np.ndarray:
    tensor = normalize_images(draw_photograph(500_003).image[None], MODEL_FACTS["folio"])
    session = ort.InferenceSession(model)
    return np.asarray(session.run(None, {"input": tensor})[0])


def test_a_scaled_model_gives_the_scaled_answers() -> None:
    scaled = onnx.load(FOLIO)
    scale_logits(scaled, 1.75)
    before, after = answer(FOLIO), answer(scaled.SerializeToString())
    assert np.abs(after - scale_answers(before, 1.75)).max() < 1e-3
    assert np.abs(after - before).max() > 0.02


def test_a_scale_moves_no_pixel_across_one_half() -> None:
    levels = np.linspace(0, 1, 1001, dtype=np.float32)
    for scale in (1.15, 3.0):
        scaled = scale_answers(levels, scale)
        assert np.array_equal(scaled > 0.5, levels > 0.5)
        assert (np.diff(scaled) >= 0).all()


def test_a_model_without_folios_head_is_refused() -> None:
    other = onnx.load(FOLIO)
    for weights in other.graph.initializer:
        if weights.name == "head.bias":
            weights.name = "other"
    with pytest.raises(ValueError, match=r"lacks head\.weight or head\.bias"):
        scale_logits(other, 2)


def test_sure_masks_are_counted_and_compared_with_the_truth() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 255
    crisp = np.where(truth > 0, 0.99, 0.01)
    soft = np.where(truth > 0, 0.8, 0.01)
    soft[15, 15] = 0.99
    wrong = crisp[:, ::-1] * 1.0
    wrong = np.roll(wrong, 10, axis=0)
    answers = np.stack([crisp, soft, wrong]).astype(np.float32)
    found = measure(answers, [truth] * 3, 1.0)
    assert found.sure == pytest.approx(2 / 3)
    assert found.right == 0.5
    # Twice the logit of 0.8 is that of 0.94.
    assert measure(answers, [truth] * 3, 2.0).sure == 1
    assert measure(answers[1:2], [truth], 1.0) == Calibration(1.0, 0, 1)


@pytest.mark.parametrize(
    ("measured", "scale"),
    [
        ([(1, 0.1, 1), (2, 0.4, 0.97), (3, 0.5, 0.96)], 2),
        ([(1, 0.1, 1), (2, 0.2, 0.97), (3, 0.5, 0.9)], 2),
        ([(1, 0.1, 0.8), (2, 0.2, 0.9)], 1),
    ],
    ids=["the smallest that is enough", "the most that is right", "none is right"],
)
def test_the_scale_is_chosen(measured: list[tuple[float, float, float]], scale: float) -> None:
    assert choose([Calibration(*each) for each in measured], 0.4).scale == scale


def test_the_command_writes_a_model_with_the_chosen_scale(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(500_000, 500_004):
        book = draw_photograph(seed, kind="book")
        write_pair(tmp_path / f"{seed}.jpg", book.image, book.mask)
    out = tmp_path / "scaled.onnx"
    calibrate(FOLIO, [tmp_path], out, least_sure=0)
    assert "scale 1.00: " in capsys.readouterr().out
    assert np.array_equal(answer(out), answer(FOLIO))
