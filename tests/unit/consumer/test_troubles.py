"""What is wrong with what a consumer depends on."""

from __future__ import annotations

from ingest.consumer.troubles import (
    BOUNDARIES,
    describe_boundaries,
    find_troubles,
    first_reason,
)
from serve_app.contracts.place import Place
from serve_app.errors import InvalidConfig

SOURCE, OTHER, LEDGER = Place("source", "s3://a"), Place("source", "s3://b"), Place("ledger")


def test_nothing_is_wrong() -> None:
    assert find_troubles(None, None, None, {}) == []
    found = describe_boundaries(BOUNDARIES, [])
    assert [each["name"] for each in found] == list(BOUNDARIES)
    assert {each["reason"] for each in found} == {None}


def test_everything_that_is_wrong_is_told_and_the_first_is_what_stops_it() -> None:
    refusing = {LEDGER: "slow", SOURCE: "denied", OTHER: "unavailable"}
    troubles = find_troubles(
        InvalidConfig("no such model"), "queue_unavailable: receive", "ledger: waits", refusing
    )
    assert troubles[0].reason == "invalid_config: no such model"
    found = {each["name"]: each["reason"] for each in describe_boundaries(BOUNDARIES, troubles)}
    assert found == {
        "queue": "queue_unavailable: receive",
        "source": "source s3://a: denied",
        "model": None,
        "pipeline": None,
        "output": None,
        "ledger": "ledger: waits",
        "settings": "invalid_config: no such model",
    }
    # Before the queue is consumed, nothing else is known.
    assert describe_boundaries((), troubles[1:2]) == [
        {"name": "queue", "reason": "queue_unavailable: receive"}
    ]


def test_an_old_failure_of_the_ledger_is_told_only_while_the_ledger_is_in_trouble() -> None:
    said = "storage_unavailable: slow down"
    queue = find_troubles(None, "queue_unavailable: receive", None, {})
    assert first_reason(queue, said) == "queue_unavailable: receive"
    both = find_troubles(None, "queue_unavailable: receive", "ledger: waits", {})
    assert first_reason(both, said) == f"queue_unavailable: receive; {said}"
    assert first_reason(find_troubles(None, None, None, {LEDGER: "denied"}), None) == (
        "ledger: denied"
    )
    assert first_reason([], said) is None
