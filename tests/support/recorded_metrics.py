"""Metrics that a test can read."""

from __future__ import annotations

from collections import defaultdict

from serve_app.serving.metrics import Metric

Labels = tuple[str, ...]


class RecordedMetrics:
    """Keeps what is recorded, and refuses what Ray would refuse. Implements ``Metrics``."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._values: dict[tuple[str, Labels], float] = {}
        self._observed: defaultdict[tuple[str, Labels], list[float]] = defaultdict(list)

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        _check(metric, "counter", labels)
        if amount > 0:
            self._counts[metric.name, labels] += amount

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        _check(metric, "gauge", labels)
        self._values[metric.name, labels] = value

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        _check(metric, "histogram", labels)
        self._observed[metric.name, labels].append(value)

    def counts(self, metric: Metric) -> dict[Labels, float]:
        return {
            labels: sum_ for (name, labels), sum_ in self._counts.items() if name == metric.name
        }

    def values(self, metric: Metric) -> dict[Labels, float]:
        return {
            labels: last for (name, labels), last in self._values.items() if name == metric.name
        }

    def observed(self, metric: Metric) -> dict[Labels, list[float]]:
        return {
            labels: all_ for (name, labels), all_ in self._observed.items() if name == metric.name
        }

    @property
    def names(self) -> frozenset[str]:
        recorded = (*self._counts, *self._values, *self._observed)
        return frozenset(name for name, _ in recorded)


def _check(metric: Metric, kind: str, labels: Labels) -> None:
    assert metric.kind == kind, f"{metric.name} is a {metric.kind}"
    assert len(labels) == len(metric.labels), f"{metric.name} has the labels {metric.labels}"
    assert all(isinstance(label, str) for label in labels), labels
