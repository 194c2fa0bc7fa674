"""What each scenario must have shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.nodes.rig import AGAIN_ENDED, Result
from tests.nodes.scenarios import GRACE_S

_UNDISTURBED = ("stranger", "elsewhere", "notice", "update", "head_kept")
"""Scenarios in which no request fails."""


_GIVEN_UP_S = 420.0
"""Time, in seconds, in which every job ends although its machine is lost. Calls that were passed to
it wait until gRPC looks at the silent connection, after 300 s, and has no answer to that, after up
to 120 s more. 361 s were measured (docs/decisions/0031)."""


def broken_promises(result: Result) -> list[str]:
    """Return what a scenario has shown and should not have, as sentences."""
    return [*_of_jobs(result), *_of_requests(result), *_of_facts(result)]


def _of_jobs(result: Result) -> Iterator[str]:
    if not result.verdict.good:
        yield f"{result.name}: not every job has one outcome and one result: {result.verdict}."
    if result.name in ("loss", "partition") and result.drained_s > _GIVEN_UP_S:
        yield f"{result.name}: the last job ended after {result.drained_s:.0f} s: calls have hung."


def _of_requests(result: Result) -> Iterator[str]:
    if not result.requests:
        yield f"{result.name}: no request was sent."
    if result.name in _UNDISTURBED and result.failed:
        yield f"{result.name}: requests failed: {result.failed}."


def _of_facts(result: Result) -> Iterator[str]:
    promised: dict[str, dict[str, Any]] = {
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
    for name, value in promised.get(result.name, {}).items():
        if result.facts.get(name) != value:
            yield f"{result.name}: {name}: {result.facts.get(name)}, not {value}."
    ended_s = result.facts.get(AGAIN_ENDED, 0)
    if result.name == "notice" and ended_s > GRACE_S:
        yield f"{result.name}: {AGAIN_ENDED}: {ended_s}, and the grace time is {GRACE_S:.0f} s."
