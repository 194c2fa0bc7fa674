"""The definitions of the metrics, and what keeps their counters and labels right."""

from __future__ import annotations

import re

import pytest

from serve_app.serving.metrics import (
    HTTP_REFUSALS,
    MESSAGES_RECEIVED,
    MESSAGES_RETRIED,
    METRICS,
    BoundedLabel,
    Metric,
    Totals,
)
from serve_app.serving.ray_metrics import process_metrics
from tests.support.recorded_metrics import RecordedMetrics

_UNITS = ("_seconds", "_bytes", "_ratio")
_OTHER_UNITS = re.compile(r"_(ms|milliseconds|minutes|kb|mb|kib|mib|percent)(_|$)")
_UNBOUNDED = {"job", "job_id", "run", "run_id", "key", "bucket", "url", "message_id"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_has_the_prefix_base_units_and_few_labels(metric: Metric) -> None:
    assert re.fullmatch(r"foreedge_[a-z_]+", metric.name)
    assert not _OTHER_UNITS.search(metric.name)
    # Ray adds this suffix to each counter.
    assert not metric.name.endswith("_total")
    assert _UNBOUNDED.isdisjoint(metric.labels)
    # Serve adds these itself, and refuses a metric that has them in a replica.
    reserved = {"replica", "application"}
    if not metric.name.startswith("foreedge_scaling_"):
        reserved.add("deployment")
    assert reserved.isdisjoint(metric.labels)
    if metric.kind == "histogram":
        assert list(metric.buckets) == sorted(set(metric.buckets))
        # Ray refuses bounds that are not positive.
        assert metric.buckets[0] > 0
        assert metric.name.endswith(_UNITS) or metric.name == "foreedge_batch_images"
    else:
        assert metric.buckets == ()


def test_every_metric_has_a_name_of_its_own() -> None:
    names = [metric.exported for metric in METRICS]
    assert len(set(names)) == len(names) > 30
    assert MESSAGES_RECEIVED.exported == "ray_foreedge_messages_received_total"


def test_a_counter_grows_by_what_its_total_has_grown() -> None:
    metrics = RecordedMetrics()
    totals = Totals(metrics)
    for total in (3, 3, 10):
        totals.follow(MESSAGES_RECEIVED, total)
    totals.follow(MESSAGES_RETRIED, 2, "overloaded")
    totals.follow(MESSAGES_RETRIED, 5, "replica_lost")
    assert metrics.counts(MESSAGES_RECEIVED) == {(): 10}
    assert metrics.counts(MESSAGES_RETRIED) == {("overloaded",): 2, ("replica_lost",): 5}


def test_a_label_from_outside_has_few_values() -> None:
    label = BoundedLabel(2)
    assert [label.value(name) for name in "abcad"] == ["a", "b", "other", "a", "other"]


def test_outside_of_ray_nothing_is_recorded() -> None:
    metrics = process_metrics()
    metrics.add(HTTP_REFUSALS, 1, "overloaded", "", "")
    assert type(metrics).__name__ == "Unrecorded"
