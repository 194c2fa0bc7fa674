"""Places and bytes: never more than there are, and none is lost."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig, Overloaded
from serve_app.http.admission import ByteBudget, ConcurrencyLimit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_one_place() -> None:
    places = ConcurrencyLimit(1, "http.max_concurrent")
    with places.take():
        assert places.taken == 1
        with pytest.raises(Overloaded, match=r"http\.max_concurrent") as caught, places.take():
            raise AssertionError("there was none")
        assert caught.value.retry_after_s == 1
        with pytest.raises(Overloaded):
            places.check()
    assert places.taken == 0
    places.check()


def test_a_place_is_freed_by_an_error() -> None:
    places = ConcurrencyLimit(1, "x")
    with pytest.raises(ZeroDivisionError), places.take():
        raise ZeroDivisionError
    assert places.taken == 0


def _refused_for_s(places: ConcurrencyLimit) -> int:
    with pytest.raises(Overloaded) as caught:
        places.check()
    return caught.value.retry_after_s


def test_retry_after_follows_the_stays() -> None:
    clock = Clock()
    places = ConcurrencyLimit(2, "x", clock)
    for _ in range(100):
        with places.take():
            clock.now += 5
    with places.take(), places.take():
        seen = {_refused_for_s(places) for _ in range(200)}
    assert min(seen) >= 5
    assert max(seen) <= 10
    assert len(seen) > 1, "not all who were refused come back together"
    for _ in range(100):
        with places.take():
            clock.now += 10_000
    with places.take(), places.take():
        assert _refused_for_s(places) == 30


def test_bytes_are_held_until_the_end_and_none_is_lost() -> None:
    budget = ByteBudget(10, "http.max_buffered_bytes")
    with ExitStack() as stack:
        first = stack.enter_context(budget.reservation())
        second = stack.enter_context(budget.reservation())
        first(6)
        second(4)
        with pytest.raises(Overloaded, match=r"http\.max_buffered_bytes"):
            second(1)
        assert budget.reserved == 10
    assert budget.reserved == 0


def test_the_largest_image_must_fit_into_the_budget() -> None:
    with pytest.raises(InvalidConfig, match="max_buffered_bytes"):
        AppConfig.load({"http": {"max_buffered_bytes": 1000}})
