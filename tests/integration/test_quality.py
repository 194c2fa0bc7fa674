"""``make quality`` on drawn books: the product's pipeline, and rembg for the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtests.quality.evaluation import RESULTS, System, evaluate, weights_precision
from loadtests.quality.page import write_worst
from loadtests.quality.sets import read_set, write_book_set
from loadtests.quality.tables import Evaluation
from serve_app.models.gate import intersection_over_union

COUNT = 3


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_book_set(COUNT)


@pytest.mark.timeout(300)
def test_masks_are_scored_by_the_cut_outs_that_are_written(books: Path) -> None:
    plain = System("plain", ("folio",), {})
    scores = evaluate(books, plain)
    images = read_set(books)
    assert [score.name for score in scores] == [image.name for image in images]
    assert len(images) == COUNT
    for score, image in zip(scores, images, strict=True):
        with Image.open(RESULTS / "books" / "folio-plain" / f"{score.name}.png") as cutout:
            alpha = np.asarray(cutout.getchannel("A"))
        assert score.iou == intersection_over_union(alpha, image.mask) > 0.7
        assert score.model == "folio"
        assert score.within is not None
        # The same weights give rembg's mask.
        assert score.within[0] >= 0.999
        assert 0 < score.cpu_s < 30
    worst = min(scores, key=lambda score: score.iou)
    page = write_worst([Evaluation("books", plain, scores)], "A note.").read_text("utf-8")
    assert page.count("data:image/webp") == 3 * COUNT
    assert page.index(worst.name) == min(page.index(score.name) for score in scores)
    assert "A note." in page


@pytest.mark.timeout(300)
def test_a_recipe_is_measured_as_the_product_carries_it_out(books: Path) -> None:
    hard = evaluate(books, System("post_process_mask", ("folio",), {"post_process_mask": True}, 1))
    assert [score.within is None for score in hard] == [False, True, True]
    with Image.open(RESULTS / "books" / "folio-post_process_mask" / f"{hard[0].name}.png") as one:
        assert set(np.unique(np.asarray(one.getchannel("A")))) == {0, 255}


@pytest.mark.timeout(300)
def test_a_cascade_answers_as_its_models_do(
    books: Path, u2netp_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U2NET_HOME", str(u2netp_weights.parents[2]))
    assert weights_precision(u2netp_weights) == "float32"
    models = ("folio", "u2netp")
    alone = {name: evaluate(books, System("plain", (name,), {}, 0)) for name in models}
    least = sorted(score.confidence for score in alone["folio"])[1]
    recipe = {"checks": {"min_confidence": least}}
    cascade = evaluate(books, System("cascade", models, recipe))
    for score, first, last in zip(cascade, alone["folio"], alone["u2netp"], strict=True):
        expected = first if first.confidence >= least else last
        assert (score.model, score.iou, score.confidence) == (
            expected.model,
            expected.iou,
            expected.confidence,
        )
    assert {score.model for score in cascade} == set(models)
