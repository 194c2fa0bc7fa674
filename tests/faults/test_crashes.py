"""Processes that die in the middle of a job: SIGKILL at a chosen point, and SIGTERM."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.fault_effects import Hold
from tests.support.fault_proxy import recorded_before_deleted
from tests.support.fault_rig import Rig

NAMES = [f"j{n}" for n in range(6)]

POINTS = {
    "in_inference": ("s3:GetObject", "*/in/*", False),
    "before_the_upload": ("s3:PutObject", "*/cutouts/*", False),
    "after_the_upload_and_before_the_ledger": ("s3:PutObject", "*.jsonl.gz", False),
    "after_the_ledger_and_before_the_deletion": ("sqs:DeleteMessageBatch", "*", False),
    "after_the_deletion_and_before_its_answer": ("sqs:DeleteMessageBatch", "*", True),
}


@pytest.mark.parametrize("point", POINTS)
async def test_killed(rig: Rig, point: str) -> None:
    action, name, after = POINTS[point]
    hold = Hold(after)
    rule = rig.proxy.add(action, hold, name=name)
    rig.send(*NAMES)
    with rig.worker() as worker:
        await hold.until_reached()
        worker.kill()
    rig.proxy.remove(rule)
    hold.drop()
    async with rig.consumer():
        await rig.until_settled()
    outcomes = rig.check()
    assert rig.dead_letters() == {}
    again = {item.receive_count for item in outcomes.values()}
    if after:
        assert 1 in again, "what was deleted did not come back"
    elif "ledger_and" in point or "and_before_the_ledger" in point:
        # The objects were there: nothing was made a second time.
        written = rig.proxy.passed("s3:PutObject", "*/cutouts/*")
        assert len({entry.request.name for entry in written}) == len(NAMES)
    if point == "after_the_ledger_and_before_the_deletion":
        assert len(rig.records()) > len(outcomes), "the record was written, and written again"


async def test_sigterm_under_load_gives_the_rest_back_at_once(rig: Rig) -> None:
    names = [f"j{n}" for n in range(24)]
    hold = Hold()
    rig.proxy.add("s3:GetObject", hold, name="*/in/j2?.jpg")
    # Longer than the test: what comes back was given back, and did not expire.
    settings = {"visibility_timeout_s": 600, "stop_grace_s": 1}
    rig.send(*names)
    with rig.worker(**settings) as worker:
        await hold.until_reached()
        stats = await asyncio.to_thread(worker.terminate)
    assert stats["unsettled"] == 0
    assert stats["released"] > 0
    assert rig.backlog().in_flight == 0
    rig.proxy.rules.clear()
    hold.let_go()
    async with rig.consumer(**settings):
        await rig.until_settled()
    rig.check()
    assert recorded_before_deleted(rig.proxy.journal) == len(names)
