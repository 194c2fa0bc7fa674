"""The choice of a cascade's confidence, and the tables that the documents carry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.image import imread

from loadtests.harness.results import replace_between_markers
from loadtests.quality.__main__ import DOCS, RECIPES, Measured, docs_block, systems_of
from loadtests.quality.cascade import MAX_LOSS, choose_confidence, cross_fit, simulate
from loadtests.quality.evaluation import Score, System
from loadtests.quality.figure import FIGURE, draw_reliability
from loadtests.quality.packages import Package
from loadtests.quality.tables import (
    CascadeResult,
    Evaluation,
    Weights,
    cascade_text,
    confidence_table,
    masks_table,
)

ROOT = Path(__file__).parents[3]
FIRST, LAST = System("plain", ("folio",), {}), System("plain", ("u2netp",), {})
CASCADE = System("cascade", ("folio", "u2netp"), {"checks": {"min_confidence": 0.9}})


def score(number: int, iou: float, confidence: float, **fields: object) -> Score:
    """Return the score of an image of a kind of its own."""
    values: dict[str, object] = {
        "name": f"test-{number:04}-kind-{number}",
        "model": "folio",
        "error": 0.01,
        "boundary": 0.9,
        "cpu_s": 0.02,
        "within": (1.0, 1.0),
    }
    return Score(iou=iou, confidence=confidence, **{**values, **fields})  # type: ignore[arg-type]


def scores(honest: bool) -> tuple[list[Score], list[Score]]:
    """Return scores of a first model, whose confidence is true or not, and of a last one."""
    first, last = [], []
    for number in range(100):
        confidence = 0.5 + number / 200
        # Honest: the first model is as good as the last from a confidence of 0.8 on.
        good = confidence >= 0.8 if honest else number % 2 == 0
        first.append(score(number, 0.95 if good else 0.4, confidence))
        last.append(score(number, 0.95, 0.9, model="u2netp", cpu_s=0.2))
    return first, last


def test_a_cascade_loses_what_the_first_model_gets_wrong() -> None:
    first, last = scores(honest=True)
    everything = simulate(first, last, 0.0)
    assert everything.answered == 1
    assert everything.loss == pytest.approx(0.6 * 0.55)
    nothing = simulate(first, last, 1.0)
    assert (nothing.answered, nothing.loss) == (0, 0)


def test_the_lowest_confidence_that_loses_little_is_chosen() -> None:
    first, last = scores(honest=True)
    chosen = choose_confidence(first, last)
    # One wrong image of 100 costs 0.0055 of mean IoU, which is too much.
    assert chosen == pytest.approx(0.8)
    assert (
        simulate(first, last, chosen).loss < MAX_LOSS <= simulate(first, last, chosen - 0.01).loss
    )


def test_a_model_that_is_sure_of_wrong_masks_hardly_answers() -> None:
    first, last = scores(honest=False)
    assert choose_confidence(first, last) == pytest.approx(0.99)


def test_a_choice_is_measured_on_subjects_that_did_not_make_it() -> None:
    first, last = scores(honest=True)
    fit = cross_fit(first, last)
    assert all(0.75 < each < 0.85 for each in fit.chosen)
    assert fit.min_confidence == max(fit.chosen)
    assert fit.answered == pytest.approx(0.4, abs=0.05)
    # Two images of one kind are in the same half: doubling every image changes no choice.
    doubled = [[*each, *each] for each in (first, last)]
    assert cross_fit(*doubled).chosen == fit.chosen


def evaluations() -> list[Evaluation]:
    first, last = scores(honest=True)
    mixed = [a if a.confidence >= 0.9 else b for a, b in zip(first, last, strict=True)]
    compared = [score(n, 0.9, 0.9, within=(0.5, 1.0) if n < 4 else None) for n in range(10)]
    return [
        Evaluation("cutouts-test", FIRST, first),
        Evaluation("cutouts-test", LAST, last),
        Evaluation("cutouts-test", CASCADE, mixed),
        Evaluation("books", systems_of("folio")[2], compared),
    ]


WEIGHTS = [Weights("folio", "float32", "a" * 64), Weights("u2netp", "float16", "b" * 64)]


def test_the_table_has_a_row_for_each_system() -> None:
    rows = [line.split("|")[1:-1] for line in masks_table(evaluations(), WEIGHTS).splitlines()]
    assert len({len(row) for row in rows}) == 1
    cells = [[cell.strip() for cell in row] for row in rows[2:]]
    assert [row[:3] for row in cells] == [
        ["folio", "float32", "plain"],
        ["u2netp", "float16", "plain"],
        ["folio, u2netp", "float16, float32", "cascade"],
        ["folio", "float32", "closed_form"],
    ]
    assert cells[0][3:8] == ["0.620", "0.400", "40%", "0.0100", "0.900"]
    # Only the images that rembg has done count, and the table says how many they are.
    assert cells[3][8:10] == ["50.000% of 4", "100.000% of 4"]


def test_the_table_of_confidence() -> None:
    rows = confidence_table(evaluations()[:2]).splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    # Ten confidences from 0.95 on, and every one of them is right.
    assert cells[0][:4] == ["folio", "cutouts-test", "10%", "100%"]
    assert cells[1][:4] == ["u2netp", "cutouts-test", "0%", ""]


@pytest.mark.parametrize(("lost", "recommended"), [(0.004, True), (0.006, False)])
def test_the_cascade_is_recommended_only_if_it_loses_little(lost: float, recommended: bool) -> None:
    first, last = scores(honest=True)
    fit = cross_fit(first, last)
    cascade = Evaluation("cutouts-test", CASCADE, [score(0, 0.95 - lost, 0.9)])
    alone = Evaluation("cutouts-test", LAST, [score(0, 0.95, 0.9, cpu_s=0.2)])
    result = CascadeResult(fit, cascade, alone)
    assert result.recommended is recommended
    text = cascade_text(result)
    assert f"a loss of {lost:.4f}" in text
    assert "10.00 times as many images" in text
    assert ("is the recommended setting" in text) is recommended
    assert ("is not recommended" in text) is not recommended


def test_the_block_of_the_documents_is_well_formed() -> None:
    some = evaluations()
    packages = [Package("stamps", "1.0", "c" * 64, Path())]
    result = CascadeResult(cross_fit(some[0].scores, some[1].scores), some[2], some[1])
    block = docs_block(Measured(packages, WEIGHTS, some, result), "make quality", 0.5)
    for table in re.findall(r"(?:^\|.*\n?)+", block, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    for fact in ("**cutouts-test**, 100 images", "**books**, 10 images", "a" * 64, "c" * 64):
        assert fact in block
    page = replace_between_markers((ROOT / DOCS).read_text("utf-8"), "quality", block)
    assert block in page
    recipes = (ROOT / RECIPES).read_text("utf-8")
    assert "x y z" in replace_between_markers(recipes, "cascade", "x y z")


def test_the_diagram_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / FIGURE.name
    draw_reliability(evaluations()[:2], path)
    height, width = imread(path).shape[:2]
    assert width > 1.5 * height > 300
