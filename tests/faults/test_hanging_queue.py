"""A socket of SQS that accepts requests and never answers them."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.fault_effects import Hold
from tests.support.fault_rig import Rig

NAMES = [f"j{n}" for n in range(4)]
VISIBILITY_S = 12
HANG_S = 9.0
"""Less than a lease lasts after a heartbeat, and more than half of what it lasts."""


@pytest.mark.parametrize("action", ["sqs:*", "sqs:ChangeMessageVisibilityBatch"])
async def test_a_queue_that_never_answers_costs_no_lease(rig: Rig, action: str) -> None:
    images = Hold()
    rig.proxy.add("s3:GetObject", images, name="*/in/*", times=len(NAMES))
    rig.send(*NAMES)
    async with rig.consumer(visibility_timeout_s=VISIBILITY_S) as consumer:
        await images.until_reached()
        silence = Hold()
        rule = rig.proxy.add(action, silence)
        began_at = time.monotonic()
        await rig.until(lambda: not consumer.healthy)
        assert "SQS does not answer" in (consumer.reason or "")
        await asyncio.sleep(began_at + HANG_S - time.monotonic())
        rig.proxy.remove(rule)
        # The requests that hang are never answered.
        silence.drop()
        await rig.until(lambda: consumer.healthy)
        images.let_go()
        await rig.until_settled()
        assert consumer.stats.lease_lost == 0
    outcomes = rig.check()
    assert {item.receive_count for item in outcomes.values()} == {1}
