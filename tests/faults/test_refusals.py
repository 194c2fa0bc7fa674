"""A store that refuses every job for a while costs none of them anything, and health names it."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.fault_effects import refuse
from tests.support.fault_rig import Rig

REFUSED_S = 3.0
"""A minute in small: as long as back-off needs to use up all receives."""

REFUSALS = {
    "source": ("s3:GetObject", "*/in/*", 403, "AccessDenied"),
    "output": ("s3:PutObject", "*/cutouts/*", 403, "AccessDenied"),
    "ledger": ("s3:PutObject", "*.jsonl.gz", 403, "AccessDenied"),
    "output of another region": ("s3:PutObject", "*/cutouts/*", 404, "NoSuchBucket"),
    "output with a lost key": ("s3:PutObject", "*/cutouts/*", 400, "KMS.DisabledException"),
    "output that rejects": ("s3:PutObject", "*/cutouts/*", 501, "NotImplemented"),
}


@pytest.mark.parametrize(
    "what",
    [
        "source",
        "output",
        "ledger",
        pytest.param("output of another region", marks=pytest.mark.slow),
        pytest.param("output with a lost key", marks=pytest.mark.slow),
        pytest.param("output that rejects", marks=pytest.mark.slow),
    ],
)
async def test_a_place_that_refuses_costs_no_job(rig: Rig, what: str) -> None:
    action, name, status, code = REFUSALS[what]
    rule = rig.proxy.add(action, refuse(status, code), name=name)
    rig.send(*(f"j{n}" for n in range(20)))
    async with rig.consumer() as consumer:
        await rig.until(lambda: consumer.reason is not None)
        assert str(consumer.reason).startswith(what.split(" ", maxsplit=1)[0])
        await asyncio.sleep(REFUSED_S)
        assert consumer.fatal is None
        assert consumer.stats.deleted == 0
        rig.proxy.remove(rule)
        await rig.until_settled()
        assert consumer.healthy
    outcomes = rig.check()
    assert {item.receive_count for item in outcomes.values()} == {1}
    assert rig.dead_letters() == {}


async def test_a_bucket_that_does_not_exist_is_told_and_costs_no_job(rig: Rig) -> None:
    """The answer to a HEAD does not show whether the object or its bucket is missing."""
    missing = {"source": {"bucket": "missing-bucket", "key": "1.jpg"}}
    for n in range(8):
        rig.send_body(rig.message(f"j{n}", **missing))
    args = rig.args()
    args["storage"] = {}
    async with rig.consumer_with(args) as consumer:
        await rig.until(lambda: consumer.reason is not None)
        assert str(consumer.reason).startswith("source s3://missing-bucket: source_not_found")
        await asyncio.sleep(REFUSED_S)
        assert consumer.stats.released == 0
    assert rig.records() == []
    assert rig.dead_letters() == {}
