"""What counts as a broken promise, and the table of the results."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.nodes.catalogue import SCENARIOS
from tests.nodes.expectations import broken_promises
from tests.nodes.jobs import Verdict
from tests.nodes.load import Request, SteadyLoad
from tests.nodes.report import table
from tests.nodes.rig import AGAIN, AGAIN_ENDED, Result, from_stored

_GOOD = Verdict(jobs=9, outcomes=9, lost=0, twice=0, orphans=0, repeated=2, dead=0, left=0)
_FACTS: dict[str, dict[str, Any]] = {
    "stranger": {
        "strangers that joined": 0,
        "dashboard, without a token": 401,
        "dashboard, other token": 403,
        "dashboard, token": 200,
    },
    "elsewhere": {"machines without HttpApi": 2, "images sent there": {"200": 20}},
    "notice": {"ended by itself": True},
    "update": {"revisions afterwards": ["two"]},
    "head_kept": {"replicas that survived": "8 of 8", "workers that survived": 2},
}


def result(name: str, **changes: Any) -> Result:
    """Return the result of a scenario that kept all promises, with changes."""
    fields: dict[str, Any] = {
        "name": name,
        "verdict": _GOOD,
        "requests": 50,
        "failed": {},
        "http_s": 0.0,
        "next_image_s": 0.2,
        "drained_s": 30.0,
        "whole_s": 12.0,
        "facts": _FACTS.get(name, {}),
    }
    return Result(**(fields | changes))


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_keeps_all_promises_breaks_none(name: str) -> None:
    assert broken_promises(result(name)) == []


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize(
    "change",
    [
        {"outcomes": 8, "lost": 1},
        {"twice": 1},
        {"orphans": 1},
        {"dead": 1},
        {"left": 1},
    ],
)
def test_every_job_has_one_outcome_and_one_result(name: str, change: dict[str, int]) -> None:
    [broken] = broken_promises(result(name, verdict=replace(_GOOD, **change)))
    assert broken.startswith(f"{name}: not every job")


@pytest.mark.parametrize("name", ["stranger", "elsewhere", "notice", "update", "head_kept"])
def test_no_request_fails_unless_a_machine_is_lost(name: str) -> None:
    [broken] = broken_promises(result(name, failed={"503 overloaded": 1}))
    assert "requests failed" in broken
    assert broken_promises(result("loss", failed={"ReadTimeout": 3})) == []


@pytest.mark.parametrize(
    ("name", "fact", "value"),
    [
        ("stranger", "strangers that joined", 1),
        ("stranger", "dashboard, without a token", 200),
        ("elsewhere", "images sent there", {"200": 19, "503": 1}),
        ("notice", "ended by itself", False),
        ("update", "revisions afterwards", ["one", "two"]),
        ("head_kept", "replicas that survived", "7 of 8"),
    ],
)
def test_facts_are_compared(name: str, fact: str, value: object) -> None:
    [broken] = broken_promises(result(name, facts={**_FACTS[name], fact: value}))
    assert broken == f"{name}: {fact}: {value}, not {_FACTS[name][fact]}."


def test_the_messages_of_a_machine_that_was_told_to_end_are_given_back_in_time() -> None:
    in_time, late = ({**_FACTS["notice"], AGAIN: 3, AGAIN_ENDED: ended_s} for ended_s in (89, 120))
    assert broken_promises(result("notice", facts=in_time)) == []
    [broken] = broken_promises(result("notice", facts=late))
    assert "120, and the grace time is 90 s" in broken
    # A machine that has lost its power gives nothing back.
    assert broken_promises(result("loss", facts=late)) == []


@pytest.mark.parametrize("name", ["loss", "partition"])
def test_no_call_hangs_longer_than_grpc_takes_to_notice_a_lost_machine(name: str) -> None:
    # gRPC ends such a call after about six minutes.
    assert broken_promises(result(name, drained_s=361.4)) == []
    [broken] = broken_promises(result(name, drained_s=421.4))
    assert broken == f"{name}: the last job ended after 421 s: calls have hung."


def test_a_request_that_was_on_its_way_to_a_lost_machine_counts() -> None:
    load = SteadyLoad(b"", list, per_second=1)
    before, cut = Request(8.0, 0.5, "a", 200), Request(9.9, 60.0, "a", "ReadTimeout")
    load.requests += [before, cut, Request(10.5, 0.1, "b", 200)]
    assert [one.good for one in load.ended(since=10.0)] == [False, True]


def test_a_result_is_stored_and_shown() -> None:
    stored = json.loads(json.dumps(result("loss", failed={"503": 2, "ReadTimeout": 1}).stored()))
    text = table([from_stored(stored)])
    row = "a worker loses its power | 9 of 9 | 0 | 0 | 2 | 50 | 503: 2, ReadTimeout: 1 | 0 | 0.2 |"
    assert row in text


def test_new_rows_take_the_place_of_their_own_only() -> None:
    page = table([result("notice", facts={"a": 1}), result("update", facts={"b": 2})])
    found = table([result("update", facts={"c": 3})], before=f"Text.\n{page}\nText.")
    assert found == table([result("notice", facts={"a": 1}), result("update", facts={"c": 3})])
