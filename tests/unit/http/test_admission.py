"""Concurrency limit and byte budget: never exceeded, and always released."""

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


def test_a_limit_of_one_slot() -> None:
    slots = ConcurrencyLimit(1, "http.max_concurrent")
    with slots.take():
        assert slots.taken == 1
        with pytest.raises(Overloaded, match=r"http\.max_concurrent") as caught, slots.take():
            raise AssertionError("no slot was free")
        assert caught.value.retry_after_s == 1
        with pytest.raises(Overloaded):
            slots.check()
    assert slots.taken == 0
    slots.check()


def test_an_error_frees_the_slot() -> None:
    slots = ConcurrencyLimit(1, "x")
    with pytest.raises(ZeroDivisionError), slots.take():
        raise ZeroDivisionError
    assert slots.taken == 0


def _refused_for_s(slots: ConcurrencyLimit) -> int:
    with pytest.raises(Overloaded) as caught:
        slots.check()
    return caught.value.retry_after_s


def test_retry_after_follows_how_long_slots_are_kept() -> None:
    clock = Clock()
    slots = ConcurrencyLimit(2, "x", clock)
    for _ in range(100):
        with slots.take():
            clock.now += 5
    with slots.take(), slots.take():
        seen = {_refused_for_s(slots) for _ in range(200)}
    assert min(seen) >= 5
    assert max(seen) <= 10
    assert len(seen) > 1, "clients rejected together come back at different times"
    for _ in range(100):
        with slots.take():
            clock.now += 10_000
    with slots.take(), slots.take():
        assert _refused_for_s(slots) == 30


def test_bytes_are_reserved_until_the_context_ends() -> None:
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
