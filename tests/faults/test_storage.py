"""What the object store does: denies, changes, throttles, breaks off, refuses conditions."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.fault_effects import cut, late_refusal, refuse, short
from tests.support.fault_proxy import Answer, Effect, Forward, Request, refusal
from tests.support.fault_rig import Rig

OUTAGE_S = 3.0
"""A minute in small: many times as long as it takes to use up all receives by back-off."""


@pytest.mark.parametrize(
    ("name", "changes", "code"),
    [
        ("gone", {}, "source_not_found"),
        ("denied", {}, "source_forbidden"),
        ("foreign", {"source": {"bucket": "somebody-elses", "key": "k"}}, "source_not_allowed"),
        ("changed", {"etag": "0" * 32}, "source_changed"),
    ],
)
async def test_a_source_that_cannot_be_had_fails_once_and_its_neighbours_succeed(
    rig: Rig, name: str, changes: dict[str, object], code: str
) -> None:
    if name in {"denied", "changed"}:
        rig.put(name)
        rig.sent.remove(name)
    if "etag" in changes:
        changes = {"source": {"bucket": rig.bucket, "key": f"in/{name}.jpg", **changes}}
    for action in ("s3:GetObject", "s3:HeadObject"):
        rig.proxy.add(action, refuse(403, "AccessDenied"), name="*/in/denied.jpg")
    rig.send("before")
    rig.send_body(rig.message(name, **changes))
    rig.send("after")
    async with rig.consumer() as consumer:
        await rig.until_settled()
        assert consumer.stats.received == 3
    outcomes = rig.check(failed={name: code})
    assert outcomes[name].retry == "permanent"
    assert rig.dead_letters() == {name: code}


@pytest.mark.parametrize("effect", [short(300), cut(), refuse(500, "InternalError")])
async def test_a_read_that_breaks_off_is_made_again(rig: Rig, effect: Effect) -> None:
    rule = rig.proxy.add("s3:GetObject", effect, name="*/in/j2.jpg", times=3)
    rig.send(*(f"j{n}" for n in range(6)))
    async with rig.consumer():
        await rig.until_settled()
    assert rule.hits == 3
    rig.check()


OUTAGES = {
    "sources": ("s3:GetObject", "*/in/*"),
    "results": ("s3:PutObject", "*/cutouts/*"),
    "the_ledger": ("s3:PutObject", "*.jsonl.gz"),
    "everything": ("s3:*", "*"),
}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("sources", marks=pytest.mark.slow),
        pytest.param("results", marks=pytest.mark.slow),
        pytest.param("the_ledger", marks=pytest.mark.slow),
        "everything",
    ],
)
async def test_an_outage_of_a_minute_costs_no_job(rig: Rig, what: str) -> None:
    """max_in_flight is 8: what waits on the queue is not even touched."""
    action, name = OUTAGES[what]
    rule = rig.proxy.add(action, refuse(503, "SlowDown"), name=name)
    rig.send(*(f"j{n}" for n in range(20)))
    async with rig.consumer() as consumer:
        await asyncio.sleep(OUTAGE_S)
        if what != "the_ledger":
            assert consumer.stats.received == 8
            assert consumer.reason is not None
            assert "SlowDown" in consumer.reason or "503" in consumer.reason
        assert consumer.stats.deleted == 0
        rig.proxy.remove(rule)
        await rig.until_settled()
        assert consumer.healthy
    assert rule.hits > 8
    outcomes = rig.check()
    assert {item.receive_count for item in outcomes.values()} == {1}
    assert rig.dead_letters() == {}


async def test_a_conditional_put_that_somebody_else_has_won_is_success(rig: Rig) -> None:
    effect = late_refusal(412, "PreconditionFailed")
    rule = rig.proxy.add("s3:PutObject", effect, name="*/cutouts/*", times=2)
    rig.send("j", "k")
    async with rig.consumer():
        await rig.until_settled()
    assert rule.hits == 2
    rig.check()


async def test_a_conditional_put_that_conflicts_is_made_again(rig: Rig) -> None:
    """S3 answers 409 if two writes conflict, and may have kept neither of them."""
    effect = refuse(409, "ConditionalRequestConflict")
    rule = rig.proxy.add("s3:PutObject", effect, name="*/cutouts/*", times=2)
    rig.send("j", "k")
    async with rig.consumer():
        await rig.until_settled()
    assert rule.hits == 2
    rig.check()


@pytest.mark.parametrize("what", ["*/cutouts/*", "*.jsonl.gz"])
async def test_the_answer_to_a_put_is_lost(rig: Rig, what: str) -> None:
    rule = rig.proxy.add("s3:PutObject", cut(after=True), name=what, times=2)
    rig.send("j")
    async with rig.consumer():
        await rig.until_settled()
    assert rule.hits > 0
    rig.check()
    assert len(rig.records()) == 1


async def test_credentials_expire_and_come_back(rig: Rig) -> None:
    names = [f"j{n}" for n in range(6)]
    async with rig.consumer() as consumer:
        rig.send(*names[:3])
        await rig.until_settled()
        rules = [
            rig.proxy.add("s3:*", refuse(400, "ExpiredToken")),
            rig.proxy.add("sqs:*", refuse(403, "ExpiredToken")),
        ]
        rig.send(*names[3:])
        await rig.until(lambda: "ExpiredToken" in str(consumer.reason))
        # Pauses grow to ten seconds and more, so that a dozen calls may take over a minute.
        await rig.until(lambda: sum(rule.hits for rule in rules) > 5)
        rig.proxy.remove(*rules)
        await rig.until_settled()
        assert consumer.healthy
    rig.check()
    assert rig.dead_letters() == {}


async def test_a_clock_that_aws_refuses_is_no_denial(rig: Rig) -> None:
    """S3 answers 403 to a wrong clock and to a denial, and to a HEAD without saying which."""

    async def skewed(request: Request, forward: Forward) -> Answer:
        return refusal(request, 403, "RequestTimeTooSkewed")

    rule = rig.proxy.add("s3:*", skewed)
    rig.send("j", "k")
    async with rig.consumer() as consumer:
        await rig.until(lambda: consumer.reason is not None)
        assert "RequestTimeTooSkewed" in str(consumer.reason)
        rig.proxy.remove(rule)
        await rig.until_settled()
    rig.check()
    assert rig.dead_letters() == {}
