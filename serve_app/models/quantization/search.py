"""The search for the layers that must stay in float32, so that the others can run in int8.

Each part of the graph is measured alone: how far the masks are off if only this part is in int8.
That ranks the layers: what costs the masks much and saves little time goes back to float32 first.
How many of them do is then found by doubling and halving, so that a graph of a hundred layers takes
a dozen measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from serve_app.contracts.precision import Accuracy
from serve_app.models.gate import Measures
from serve_app.models.quantization.layers import GraphLayer

Judge = Callable[[Collection[str]], Measures]
"""Measures the masks with some layers in float32, by their names, and all others in int8."""

_STAGE = 8
"""Number of neighbouring layers that are measured together first."""
_MOST_IN_FLOAT = 0.4
"""Largest share of the products in float32. With more of them, int8 saves too little time."""
_CROSSING = 0.01
"""Share of a run that a change between float32 and int8 is taken to cost, whatever its size."""


@dataclass(frozen=True, slots=True)
class PartError:
    """What a part of a graph costs the masks if nothing else is in int8."""

    layers: tuple[str, ...]
    """Names of its layers."""
    products: float
    """Share of all products of the graph, 0 to 1."""
    difference: float
    """Mean difference of the masks, in grey levels."""

    @property
    def worth(self) -> float:
        """Difference that float32 avoids, for each share of the time that it may cost."""
        return self.difference / (self.products + _CROSSING)


@dataclass(frozen=True, slots=True)
class FloatLayers:
    """The result of a search."""

    in_float: tuple[str, ...]
    """Names of the layers that stay in float32, in the order of the graph."""
    in_int8: float
    """Share of the products that run in int8, 0 to 1."""
    parts: tuple[PartError, ...]
    """Error of each part. Empty if all layers can run in int8."""
    measures: Measures
    """What was measured with these layers in float32, on the images that chose their number."""

    def rank(self, accuracy: Accuracy) -> tuple[bool, float]:
        """Return what is larger for a better choice: one that passes, then the faster one.

        Of those that do not pass, the more accurate one is better.
        """
        passes = self.measures.suffices_for(accuracy)
        return passes, self.in_int8 if passes else -self.measures.difference


class FloatSearch:
    """A search over the layers of one graph."""

    def __init__(
        self,
        layers: Sequence[GraphLayer],
        judge: Judge,
        suffices: Callable[[Measures], bool],
        *,
        judge_part: Judge | None = None,
    ) -> None:
        """Prepare a search.

        Args:
            layers: Layers in the order of the graph, at least one.
            judge: What measures the masks that must suffice.
            suffices: Whether masks are near enough.
            judge_part: What measures one part alone, on fewer and other images. Default: ``judge``.
        """
        self._layers = layers
        self._judge = judge
        self._suffices = suffices
        self._judge_part = judge_part or judge
        self._all = sum(each.products for each in layers)

    def run(self, parts: Sequence[PartError] = ()) -> FloatLayers:
        """Return the fewest of the ranked layers that suffice in float32.

        Args:
            parts: Errors of the parts, if an earlier search has measured them.

        Returns:
            The result. If no choice suffices, it is the most accurate one.
        """
        measures = self._judge(())
        if self._suffices(measures):
            return self._result((), measures, ())
        parts = parts or self._measure_parts()
        ranked = self._candidates(parts)
        return self._result(*self._fewest(ranked, measures), parts)

    def _measure_parts(self) -> list[PartError]:
        """Return the error of each stage, and of each layer of those that cost most."""
        stages = [
            self._part(self._layers[start : start + _STAGE])
            for start in range(0, len(self._layers), _STAGE)
        ]
        mean = sum(each.difference for each in stages) / len(stages)
        found = []
        for number, stage in enumerate(stages):
            layers = self._layers[number * _STAGE :][: len(stage.layers)]
            if stage.difference < mean or len(layers) == 1:
                found.append(stage)
            else:
                found += [self._part([each]) for each in layers]
        return found

    def _part(self, layers: Sequence[GraphLayer]) -> PartError:
        names = tuple(each.name for each in layers)
        others = [each.name for each in self._layers if each.name not in names]
        products = sum(each.products for each in layers) / self._all
        return PartError(names, products, self._judge_part(others).difference)

    def _candidates(self, parts: Sequence[PartError]) -> list[PartError]:
        """Return the parts that are worth most in float32, as many as leave int8 a use."""
        found, products = [], 0.0
        for each in sorted(parts, key=lambda part: part.worth, reverse=True):
            if products + each.products <= _MOST_IN_FLOAT:
                found.append(each)
                products += each.products
        return found

    def _fewest(self, ranked: Sequence[PartError], without: Measures) -> tuple[list[str], Measures]:
        """Return the fewest of the first parts that suffice, or the most accurate number of them.

        More layers in float32 are not always better, since errors of layers may cancel out. So it
        begins with few and doubles their number.
        """
        names: list[str] = []
        best, low, high = without, 1, 0
        for count in _doubled(len(ranked)):
            tried = _names(ranked[:count])
            measures = self._judge(tried)
            if self._suffices(measures):
                names, best, high = tried, measures, count
                break
            low = count + 1
            if measures.difference < best.difference:
                names, best = tried, measures
        while low < high:
            middle = (low + high) // 2
            tried = _names(ranked[:middle])
            measures = self._judge(tried)
            if self._suffices(measures):
                names, best, high = tried, measures, middle
            else:
                low = middle + 1
        return names, best

    def _result(
        self, names: Collection[str], measures: Measures, parts: Sequence[PartError]
    ) -> FloatLayers:
        kept = [each for each in self._layers if each.name in names]
        in_float = sum(each.products for each in kept) / self._all
        return FloatLayers(tuple(each.name for each in kept), 1 - in_float, tuple(parts), measures)


def _names(parts: Sequence[PartError]) -> list[str]:
    return [name for part in parts for name in part.layers]


def _doubled(most: int) -> list[int]:
    """Return 1, 2, 4 and so on, and at last ``most``."""
    counts = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*counts, most] if most else []
