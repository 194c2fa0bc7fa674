"""The metrics of a process of Ray, which Ray exports to Prometheus."""

from __future__ import annotations

import functools
import logging
import platform
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import ray
from ray.serve import metrics as serve_metrics

from serve_app.serving.metrics import BUILD_INFO, UNRECORDED, Metric, Metrics
from serve_app.serving.recent_metrics import Note, RecentMetrics, RecentValues
from serve_app.version import find_revision, find_version

SAMPLED_EVERY_S = 5.0
"""Time, in seconds, between two samples of what is not an event. Ray exports every 10 s."""

FLUSHED_EVERY_S = 1.0
"""Time, in seconds, between two times at which Ray gets what was noted."""

_logger = logging.getLogger(__name__)


class RayMetrics:
    """The metrics of this process. Implements ``Metrics``.

    A call only notes its values. ``flush`` gives them to Ray, one after the other in a thread of
    its own, which takes a quarter of the time of single calls next to other work
    (``loadtests.benchmarks.metrics``). Counters are summed up before.
    """

    def __init__(self) -> None:
        self._made: dict[Metric, Any] = {}
        # Its methods are atomic, so that every thread may append.
        self._noted: deque[Note] = deque()
        self.recent = RecentMetrics(time.time)

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """See ``Metrics``."""
        self._noted.append((metric, labels, amount))

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """See ``Metrics``."""
        self._noted.append((metric, labels, value))

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """See ``Metrics``."""
        self._noted.append((metric, labels, value))

    def flush(self) -> None:
        """Give Ray what was noted. One thread at a time may call it."""
        sums: defaultdict[tuple[Metric, tuple[str, ...]], float] = defaultdict(float)
        notes = [self._noted.popleft() for _ in range(len(self._noted))]
        self.recent.note(notes)
        for metric, labels, value in notes:
            if metric.kind == "counter":
                sums[metric, labels] += max(0.0, value)
            elif metric.kind == "gauge":
                self._of(metric).set(value, _tags(metric, labels))
            else:
                self._of(metric).observe(value, _tags(metric, labels))
        for (metric, labels), total in sums.items():
            # Ray refuses to add nothing.
            if total:
                self._of(metric).inc(total, _tags(metric, labels))

    def _of(self, metric: Metric) -> Any:
        if metric not in self._made:
            self._made[metric] = _make(metric)
        return self._made[metric]


def process_metrics() -> Metrics:
    """Return the metrics of this process. Nothing is recorded in a process outside of Ray."""
    return _ray_metrics() if ray.is_initialized() else UNRECORDED


def recent_values() -> RecentValues:
    """Return what this process has recorded lately."""
    return _ray_metrics().recent.values()


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
        _repeat(sample, SAMPLED_EVERY_S)


def _repeat(function: Callable[[], None], every_s: float) -> None:
    never = threading.Event()

    def run() -> None:
        while True:
            try:
                function()
            # Metrics must not end what they watch. The next time may succeed.
            except Exception:
                _logger.exception("the metrics could not be recorded")
            never.wait(every_s)

    threading.Thread(target=run, name="metrics", daemon=True).start()


@functools.cache
def _ray_metrics() -> RayMetrics:
    metrics = RayMetrics()
    _repeat(metrics.flush, FLUSHED_EVERY_S)
    return metrics


def _tags(metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))


def _make(metric: Metric) -> Any:
    name, text, labels = metric.name, metric.description, metric.labels
    if metric.kind == "histogram":
        return serve_metrics.Histogram(name, text, list(metric.buckets), labels)
    kind = serve_metrics.Counter if metric.kind == "counter" else serve_metrics.Gauge
    return kind(name, text, labels)
