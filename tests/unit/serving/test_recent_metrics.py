"""The half hour that a process remembers of its metrics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.serving.metrics import BUILD_INFO, IMAGES, QUEUE_MESSAGES, STAGE_SECONDS
from serve_app.serving.recent_metrics import (
    DISTRIBUTION_SLOTS,
    SLOT_S,
    SLOTS,
    RecentMetrics,
    add_buckets,
    quantile,
)

DONE = ("queue", "done", "", "folio")


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_counters_are_summed_and_gauges_replaced_within_a_slot() -> None:
    clock = Clock()
    recent = RecentMetrics(clock)
    recent.note([(IMAGES, DONE, 2), (QUEUE_MESSAGES, ("visible",), 7)])
    recent.note([(IMAGES, DONE, 3), (QUEUE_MESSAGES, ("visible",), 5), (IMAGES, DONE, -1)])
    clock.now_s += SLOT_S
    recent.note([(IMAGES, DONE, 1)])
    values = recent.values()
    first = 1_000_000 // SLOT_S
    assert values.counts == {(IMAGES.name, DONE): {first: 5, first + 1: 1}}
    assert values.gauges == {(QUEUE_MESSAGES.name, ("visible",)): {first: 5}}


def test_what_is_older_than_half_an_hour_is_forgotten() -> None:
    clock = Clock()
    recent = RecentMetrics(clock)
    for _ in range(2 * SLOTS):
        recent.note([(IMAGES, DONE, 1)])
        clock.now_s += SLOT_S
    # The present slot has nothing yet.
    assert len(recent.values().counts[IMAGES.name, DONE]) == SLOTS - 1
    clock.now_s += SLOTS * SLOT_S
    assert recent.values().counts == {}


def test_a_clock_that_was_ahead_does_not_hide_the_present() -> None:
    clock = Clock()
    recent = RecentMetrics(clock)
    clock.now_s += 86_400
    recent.note([(IMAGES, DONE, 1)])
    clock.now_s -= 86_400
    for _ in range(3):
        recent.note([(IMAGES, DONE, 50)])
        clock.now_s += SLOT_S
    assert list(recent.values().counts[IMAGES.name, DONE].values()) == [50, 50, 50]


def test_distributions_are_those_of_five_minutes() -> None:
    clock = Clock()
    recent = RecentMetrics(clock)
    for seconds in (0.001, 0.002, 1000.0):
        recent.note([(STAGE_SECONDS, ("decode",), seconds)])
    [buckets] = recent.values().distributions[STAGE_SECONDS.name, ("decode",)].values()
    assert (buckets[0], buckets[1], buckets[-1], sum(buckets)) == (1, 1, 1, 3)
    clock.now_s += DISTRIBUTION_SLOTS * SLOT_S
    assert recent.values().distributions == {}


def test_metrics_that_the_page_does_not_show_are_not_kept() -> None:
    recent = RecentMetrics(Clock())
    recent.note([(BUILD_INFO, ("1", "abc", "aarch64"), 1)])
    assert recent.values().gauges == {}


@given(st.lists(st.floats(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_a_quantile_is_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    bounds = (0.5, 1.0, 2.0, 4.0)
    buckets = [0] * 5
    for value in values:
        buckets[sum(value > bound for bound in bounds)] += 1
    estimated = quantile(buckets, bounds, share)
    true = sorted(values)[min(len(values) - 1, max(0, -(-len(values) * share // 1).__int__() - 1))]
    index = sum(true > bound for bound in bounds)
    lower = 0.0 if index == 0 else bounds[index - 1]
    assert lower - 1e-9 <= estimated <= bounds[index] + 1e-9


def test_quantiles_of_nothing_and_of_what_is_beyond_the_last_bound() -> None:
    assert quantile((0, 0, 0), (1.0, 2.0), 0.5) == 0
    assert quantile((0, 0, 3), (1.0, 2.0), 0.5) == 2


def test_buckets_of_two_processes_are_added() -> None:
    assert add_buckets((1, 2), [3, 4]) == (4, 6)
    assert add_buckets((), [3, 4]) == (3, 4)
    with pytest.raises(ValueError, match="zip"):
        add_buckets((1,), (1, 2))
