"""The metrics of a process of Ray, which Ray exports to Prometheus."""

from __future__ import annotations

import functools
import logging
import platform
import threading
from collections.abc import Callable
from typing import Any

import ray
from ray.serve import metrics as serve_metrics

from serve_app.serving.metrics import BUILD_INFO, UNRECORDED, Metric, Metrics
from serve_app.version import find_revision, find_version

SAMPLED_EVERY_S = 5.0
"""Time, in seconds, between two samples of what is not an event. Ray exports every 10 s."""

_logger = logging.getLogger(__name__)


class RayMetrics:
    """The metrics of this process. Implements ``Metrics``.

    A call takes 5 to 10 µs and never waits: Ray adds the value up in memory, and a thread of its
    own sends the sums.
    """

    def __init__(self) -> None:
        self._made: dict[Metric, Any] = {}
        self._tags: dict[tuple[Metric, tuple[str, ...]], dict[str, str]] = {}

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """See ``Metrics``."""
        if amount > 0:
            self._of(metric).inc(amount, self._tags_of(metric, labels))

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """See ``Metrics``."""
        self._of(metric).set(value, self._tags_of(metric, labels))

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """See ``Metrics``."""
        self._of(metric).observe(value, self._tags_of(metric, labels))

    def _of(self, metric: Metric) -> Any:
        # Two threads may make the same metric, which Ray takes for one.
        made = self._made.get(metric)
        if made is None:
            made = self._made[metric] = _make(metric)
        return made

    def _tags_of(self, metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
        key = (metric, labels)
        if key not in self._tags:
            self._tags[key] = dict(zip(metric.labels, labels, strict=True))
        # Ray writes to what it gets.
        return self._tags[key].copy()


def process_metrics() -> Metrics:
    """Return the metrics of this process. Nothing is recorded in a process outside of Ray."""
    return _ray_metrics() if ray.is_initialized() else UNRECORDED


def record_build(metrics: Metrics) -> None:
    """Record which program this process runs."""
    metrics.set(BUILD_INFO, 1, find_version(), find_revision(), platform.machine())


def sample_periodically(sample: Callable[[], None]) -> None:
    """Call a function now and then, in a thread that ends with the process of Ray.

    Args:
        sample: Function that records gauges. It reads what the event loop writes, so it must read
            single values only.
    """
    if ray.is_initialized():
        threading.Thread(target=_sample, args=(sample,), name="metrics", daemon=True).start()


def _sample(sample: Callable[[], None]) -> None:
    never = threading.Event()
    while True:
        try:
            sample()
        # Metrics must not end what they watch. The next sample may succeed.
        except Exception:
            _logger.exception("the metrics could not be sampled")
        never.wait(SAMPLED_EVERY_S)


@functools.cache
def _ray_metrics() -> RayMetrics:
    return RayMetrics()


def _make(metric: Metric) -> Any:
    name, text, labels = metric.name, metric.description, metric.labels
    if metric.kind == "histogram":
        return serve_metrics.Histogram(name, text, list(metric.buckets), labels)
    kind = serve_metrics.Counter if metric.kind == "counter" else serve_metrics.Gauge
    return kind(name, text, labels)
