"""Which layers the search keeps in float32."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from serve_app.models.gate import Measures
from serve_app.models.quantization.layers import GraphLayer
from serve_app.models.quantization.search import FloatLayers, FloatSearch

LAYERS = [GraphLayer(f"layer{number}", f"conv{number}", 100) for number in range(40)]


def judged(errors: dict[str, float], in_float: Collection[str]) -> Measures:
    """Return measures whose difference is the sum of the errors of the layers in int8."""
    difference = sum(error for name, error in errors.items() if name not in in_float)
    return Measures(
        images=1,
        difference=difference,
        iou=1,
        within_2=1,
        within_8=1,
        true_iou_loss=0,
        worst="0",
        worst_within_8=1,
    )


class Trial:
    """Counts what a search measures."""

    def __init__(self, errors: dict[str, float], limit: float, layers: list[GraphLayer]) -> None:
        self.measured = 0
        self._errors, self._limit = errors, limit
        self.search = FloatSearch(layers, self.judge, self.suffices)

    def judge(self, in_float: Collection[str]) -> Measures:
        self.measured += 1
        return judged(self._errors, in_float)

    def suffices(self, measures: Measures) -> bool:
        return measures.difference <= self._limit


def test_nothing_stays_in_float_if_all_of_it_suffices() -> None:
    trial = Trial({each.name: 0.01 for each in LAYERS}, 0.5, LAYERS)
    found = trial.search.run()
    assert (found.in_float, found.in_int8, found.parts) == ((), 1, ())
    assert trial.measured == 1


@pytest.mark.parametrize("bad", [{0}, {17}, {39}, {3, 4, 30}])
def test_only_the_layers_that_spoil_the_masks_stay_in_float(bad: set[int]) -> None:
    errors = {each.name: 3.0 if n in bad else 0.001 for n, each in enumerate(LAYERS)}
    found = Trial(errors, 0.5, LAYERS).search.run()
    assert found.in_float == tuple(LAYERS[n].name for n in sorted(bad))
    assert found.in_int8 == pytest.approx(1 - len(bad) / 40)
    assert found.measures.difference == pytest.approx(0.001 * (40 - len(bad)))
    # The parts say which layer it was.
    alone = {part.layers: part.difference for part in found.parts}
    assert all(alone[(LAYERS[n].name,)] == 3 for n in bad)


def test_a_hundred_layers_take_a_dozen_measurements_of_the_whole() -> None:
    layers = [GraphLayer(f"layer{number}", f"conv{number}", 100) for number in range(120)]
    errors = {each.name: 0.02 + 0.01 * (n % 7) for n, each in enumerate(layers)}
    whole, parts = Trial(errors, 4.0, layers), Trial(errors, 4.0, layers)
    search = FloatSearch(layers, whole.judge, whole.suffices, judge_part=parts.judge)
    found = search.run()
    assert whole.suffices(found.measures)
    assert found.in_float
    assert whole.measured <= 13
    assert parts.measured == len(layers) / 8 + sum(len(part.layers) == 1 for part in found.parts)


def test_without_a_choice_that_suffices_the_most_accurate_one_is_returned() -> None:
    errors = {each.name: 1.0 for each in LAYERS}
    trial = Trial(errors, 0.5, LAYERS)
    found = trial.search.run()
    # As many as leave int8 a use, in whole stages.
    assert found.in_int8 == pytest.approx(25 / 40)
    assert found.measures.difference == pytest.approx(25)


def test_few_layers_are_found_although_more_of_them_do_not_suffice() -> None:
    # The errors of the other layers cancel out, as long as all of them are in int8.
    def judge(in_float: Collection[str]) -> Measures:
        bad = {"layer3", "layer17"} - set(in_float)
        return judged({"all": 3.0 * len(bad) + (len(in_float) > 4)}, ())

    def part(in_float: Collection[str]) -> Measures:
        alone = {each.name for each in LAYERS} - set(in_float)
        return judged({name: 3.0 if name in ("layer3", "layer17") else 0.1 for name in alone}, ())

    def suffices(measures: Measures) -> bool:
        return measures.difference <= 0.5

    found = FloatSearch(LAYERS, judge, suffices, judge_part=part).run()
    assert found.in_float == ("layer3", "layer17")


def test_a_cheap_layer_goes_to_float_before_an_expensive_one() -> None:
    layers = [
        GraphLayer("large", "a", 10_000),
        GraphLayer("small", "b", 100),
        GraphLayer("other", "c", 20_000),
    ]
    errors = {"large": 0.4, "small": 0.4, "other": 0.0}
    found = Trial(errors, 0.5, layers).search.run()
    assert found.in_float == ("small",)


def test_a_change_of_precision_has_a_price_whatever_the_size_of_its_layer() -> None:
    layers = [
        GraphLayer("tiny", "a", 1),
        GraphLayer("middle", "b", 1_000),
        GraphLayer("other", "c", 9_000),
    ]
    errors = {"tiny": 0.02, "middle": 1.0, "other": 0.0}
    found = Trial(errors, 0.5, layers).search.run()
    assert found.in_float == ("middle",)


def test_a_choice_that_passes_is_better_and_of_these_the_faster_one() -> None:
    def choice(difference: float, in_int8: float) -> FloatLayers:
        measures = judged({"all": difference}, ()).model_copy(update={"within_2": 0.9})
        return FloatLayers((), in_int8, (), measures)

    # The bound of the mean difference is 0.25 grey levels.
    worst_first = [choice(0.6, 0.99), choice(0.5, 0.9), choice(0.1, 0.6), choice(0.2, 0.7)]
    ranks = [each.rank("close") for each in worst_first]
    assert [passes for passes, _ in ranks] == [False, False, True, True]
    assert ranks == sorted(ranks)


def test_a_layer_that_most_of_the_time_goes_to_stays_in_int8() -> None:
    layers = [GraphLayer("large", "a", 10_000), GraphLayer("small", "b", 100)]
    found = Trial({"large": 4.0, "small": 0.1}, 0.5, layers).search.run()
    # It does not suffice, which the gate will say.
    assert "large" not in found.in_float
    assert found.measures.difference >= 4


def test_a_stage_is_measured_once_and_only_the_worst_layer_by_layer() -> None:
    errors = {each.name: 3.0 if n == 17 else 0.001 for n, each in enumerate(LAYERS)}
    trial = Trial(errors, 0.5, LAYERS)
    found = trial.search.run()
    assert len(found.parts) == 4 + 8
    assert trial.measured < len(LAYERS)
