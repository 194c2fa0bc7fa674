"""The arithmetic of the backlog policy, and what replicas measure for it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.scaling.scaler import BacklogReading, Demand, Goals, Scaler, replicas_needed
from serve_app.config import PipelineConfig
from serve_app.pipeline.measurements import replica_seconds
from serve_app.serving.service_time import SECONDS_PER_IMAGE, ServiceTime

GOALS = Goals(drain_s=100, answer_s=10, late_after_s=20, away_after_s=300)

amounts = st.floats(0, 1e7)
replicas = st.integers(1, 500)


def needed(backlog: float = 0, ongoing: float = 0, current: int = 1, dispatched: float = 0) -> int:
    return replicas_needed(Demand(backlog, ongoing, dispatched), GOALS, 0.5, 2, current)


@pytest.mark.parametrize(
    ("backlog", "ongoing", "current", "expected"),
    [
        (0, 0, 5, 0),
        (200, 0, 1, 1),  # 200 x 0.5 s = 100 s of work in 100 s
        (201, 0, 1, 2),
        (1000, 0, 1, 5),
        (0, 100, 1, 5),  # 100 requests x 0.5 s in 10 s
        (200, 9, 5, 5),  # nine requests keep five replicas of two slots busy
        (200, 9, 3, 3),  # and ask for none that is not there
        (1000, 2, 9, 5),
    ],
)
def test_the_largest_need_counts(
    backlog: float, ongoing: float, current: int, expected: int
) -> None:
    assert needed(backlog, ongoing, current) == expected


@given(amounts, amounts, replicas)
def test_what_is_asked_for_meets_every_goal_and_not_one_replica_more(
    backlog: float, ongoing: float, current: int
) -> None:
    found = needed(backlog, ongoing, current)

    def enough(count: int) -> bool:
        return (
            backlog * 0.5 / GOALS.drain_s <= count
            and ongoing * 0.5 / GOALS.answer_s <= count
            and min(current, ongoing / 2) <= count
        )

    assert enough(found)
    assert found == 0 or not enough(found - 1)


@given(amounts, amounts, amounts, replicas)
def test_more_to_do_never_needs_fewer(
    backlog: float, more: float, ongoing: float, current: int
) -> None:
    assert needed(backlog + more, ongoing, current) >= needed(backlog, ongoing, current)
    assert needed(backlog, ongoing + more, current) >= needed(backlog, ongoing, current)


def scaler() -> Scaler:
    return Scaler(GOALS, 0.5, 2, now_s=0)


def test_before_the_first_reading_nothing_is_given_up() -> None:
    assert scaler().decide(None, 0, current=7, now_s=10) == 7
    assert scaler().decide(None, 200, current=7, now_s=10) == 10
    assert scaler().decide(None, 0, current=7, now_s=301) == 0


def test_a_late_reading_holds_and_an_old_one_counts_no_longer() -> None:
    reading = BacklogReading(500, 100, at_s=1000)
    decide = scaler().decide
    assert decide(reading, 0, current=5, now_s=1020) == 3
    assert decide(reading, 0, current=5, now_s=1021) == 5
    assert decide(reading, 0, current=2, now_s=1021) == 3
    assert decide(reading, 0, current=5, now_s=1301) == 0
    assert decide(reading, 7, current=5, now_s=1301) == 4


@pytest.mark.parametrize("worthless", [0.0, -1.0, math.nan, math.inf])
def test_what_replicas_measured_replaces_what_was_configured(worthless: float) -> None:
    own = scaler()
    own.apply_measurement(2.0)
    own.apply_measurement(worthless)
    assert own.decide(BacklogReading(1000, 0, 0), 0, current=1, now_s=1) == 20


def test_pace_is_the_time_of_a_replica_and_follows_changes() -> None:
    pace = ServiceTime(threads=2)
    assert pace.stats() == {}
    pace.add(0.4)
    assert pace.stats() == {SECONDS_PER_IMAGE: 0.2}
    pace.add(1.6, images=8)
    assert pace.stats()[SECONDS_PER_IMAGE] == pytest.approx(0.2 - 0.1 * 8 / 50)
    for _ in range(500):
        pace.add(0.1)
    assert pace.stats()[SECONDS_PER_IMAGE] == pytest.approx(0.05, rel=0.01)


def test_what_the_queue_dispatched_has_the_time_of_the_backlog() -> None:
    own = Scaler(GOALS, 0.5, 2, permits=100, now_s=0)
    assert own.decide(BacklogReading(0, 100, 0), 100, current=1, now_s=1) == 1
    assert own.decide(BacklogReading(0, 100, 0), 140, current=1, now_s=1) == 2
    # The mean of the ongoing requests lags behind the queue, by which they are explained.
    assert own.decide(BacklogReading(0, 0, 50), 100, current=1, now_s=51) == 1
    assert own.decide(BacklogReading(0, 0, 70), 100, current=1, now_s=71) == 5
    # Messages that are hidden for another reason explain no more than there are permits.
    assert own.decide(BacklogReading(0, 5000, 80), 200, current=1, now_s=81) == 25
    assert own.decide(BacklogReading(0, 190, 150), 200, current=1, now_s=151) == 5


def test_matting_has_threads_of_its_own() -> None:
    config = PipelineConfig(threads=2, matting_threads=1)
    stages = {"fetch": 900.0, "decode": 60.0, "segment": 5000.0, "encode": 40.0, "publish": 300.0}
    assert replica_seconds(stages, config) == pytest.approx(0.05)
    assert replica_seconds({**stages, "matting": 800.0}, config) == pytest.approx(0.8)
