"""The state machine of breakers, which has no clock and does not wait."""

from __future__ import annotations

import pytest

from ingest.consumer.breakers import REFUSALS_UNTIL_OPEN, Breakers
from serve_app.contracts.place import Place

X, Y = Place.of_bucket("source", "x"), Place.of_bucket("source", "y")
OUTPUT = Place.of_bucket("output", "y")
PATIENCE_S, WITH_ONE_S = 600.0, 300.0


def closed(permits: int = 64) -> Breakers:
    return Breakers(permits, patience_s=PATIENCE_S, patience_with_one_s=WITH_ONE_S)


def refuse(breakers: Breakers, count: int, *, at_s: float = 10, place: Place = X) -> None:
    for number in range(count):
        breakers.note_refusal(place, f"j{number}", "denied", at_s)


def test_several_jobs_open_a_breaker_and_one_that_is_refused_again_does_not() -> None:
    breakers = closed()
    refuse(breakers, REFUSALS_UNTIL_OPEN - 1)
    for _ in range(100):
        breakers.note_refusal(X, "j0", "denied", 20)
    assert not breakers.is_open(X)
    assert breakers.most_messages(20, idle=False) is None
    breakers.note_refusal(X, "another", "denied", 30)
    assert breakers.is_open(X)
    assert breakers.most_messages(30, idle=False) == 0
    assert breakers.refusing() == {X: "denied"}
    assert breakers.refusing_since_s(X) == 10


@pytest.mark.parametrize(("permits", "refusals"), [(1, 2), (2, 2), (4, 4), (1_000, 5)])
def test_few_permits_need_fewer_refusals(permits: int, refusals: int) -> None:
    breakers = closed(permits)
    refuse(breakers, refusals - 1)
    assert not breakers.is_open(X)
    refuse(breakers, refusals)
    assert breakers.is_open(X)


def test_a_job_that_began_before_the_refusals_closes_nothing() -> None:
    breakers = closed()
    refuse(breakers, REFUSALS_UNTIL_OPEN, at_s=10)
    breakers.note_services([X], began_s=9, at_s=12)
    assert breakers.is_open(X)
    assert not breakers.has_served_since(X, 10)
    breakers.note_services([X], began_s=11, at_s=12)
    assert not breakers.is_open(X)
    assert breakers.has_served_since(X, 10)
    assert breakers.refusing() == {}


def test_a_result_that_existed_closes_a_breaker_but_blames_no_job() -> None:
    breakers = closed()
    refuse(breakers, REFUSALS_UNTIL_OPEN, at_s=10)
    breakers.note_services([X], began_s=11, at_s=12, conclusive=False)
    assert not breakers.is_open(X)
    assert not breakers.has_served_since(X, 0)
    assert not breakers.is_jobs_fault(X, 0, 10_000)


def test_refusals_count_from_the_last_service() -> None:
    breakers = closed()
    for round_s in range(0, 100, 10):
        refuse(breakers, REFUSALS_UNTIL_OPEN - 1, at_s=round_s)
        breakers.note_services([X], began_s=round_s + 1, at_s=round_s + 2)
    assert not breakers.is_open(X)


def test_one_bucket_among_others_does_not_stop_them_and_is_blamed_in_the_end() -> None:
    breakers = closed()
    refuse(breakers, REFUSALS_UNTIL_OPEN, at_s=10)
    breakers.note_services([OUTPUT], began_s=11, at_s=12)
    assert breakers.most_messages(12, idle=False) == 0, "an output is no source"
    breakers.note_services([Y], began_s=9, at_s=12)
    assert breakers.most_messages(12, idle=False) == 0, "it began before the refusals"
    breakers.note_services([Y], began_s=11, at_s=13)
    assert breakers.most_messages(13, idle=False) is None
    assert breakers.is_open(X)
    assert not breakers.is_jobs_fault(X, 10, 9 + PATIENCE_S)
    assert breakers.is_jobs_fault(X, 10, 10 + PATIENCE_S)
    breakers.note_services([X], began_s=700, at_s=701)
    refuse(breakers, REFUSALS_UNTIL_OPEN, at_s=702)
    assert not breakers.is_jobs_fault(X, 702, 703), "patience begins again"


def test_the_only_bucket_is_never_blamed_on_the_jobs() -> None:
    breakers = closed()
    refuse(breakers, REFUSALS_UNTIL_OPEN, at_s=10)
    assert not breakers.is_jobs_fault(X, 10, 10**6)


def test_a_job_that_alone_is_refused_is_blamed_after_a_while() -> None:
    breakers = closed()
    refuse(breakers, 1, at_s=10)
    assert not breakers.is_jobs_fault(X, 9, 10**6), "nothing shows that the bucket serves anyone"
    breakers.note_services([X], began_s=8, at_s=12)
    assert not breakers.is_jobs_fault(X, 9, 8 + WITH_ONE_S)
    assert breakers.is_jobs_fault(X, 9, 9 + WITH_ONE_S)


def test_one_message_is_received_if_no_job_is_left_to_try_the_place() -> None:
    breakers = closed()
    breakers.begin_waiting(X)
    refuse(breakers, REFUSALS_UNTIL_OPEN, at_s=10)
    assert breakers.most_messages(11, idle=True) == 0
    breakers.end_waiting(X)
    assert breakers.most_messages(11, idle=False) == 0
    assert breakers.most_messages(11, idle=True) == 1


def test_now_and_then_one_message_is_received_once_patience_has_ended() -> None:
    breakers = closed()
    breakers.begin_waiting(X)
    refuse(breakers, REFUSALS_UNTIL_OPEN, at_s=10)
    assert breakers.most_messages(9 + PATIENCE_S, idle=False) == 0
    assert breakers.most_messages(10 + PATIENCE_S, idle=False) == 1
    breakers.note_sample(10 + PATIENCE_S)
    assert breakers.most_messages(20 + PATIENCE_S, idle=False) == 0
    assert breakers.most_messages(40 + PATIENCE_S, idle=False) == 1


def test_places_that_nobody_waits_for_are_forgotten() -> None:
    breakers = closed()
    breakers.begin_waiting(X)
    refuse(breakers, REFUSALS_UNTIL_OPEN)
    for number in range(1_000):
        breakers.note_refusal(Place.of_bucket("output", f"b{number}"), "j", "denied", 20)
    assert breakers.is_open(X)
    assert breakers.refusing_since_s(Place.of_bucket("output", "b0")) is None
    assert breakers.refusing_since_s(Place.of_bucket("output", "b999")) == 20
