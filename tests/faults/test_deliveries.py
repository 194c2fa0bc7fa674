"""The queue delivers twice, throttles, fails in part, loses answers, or disappears."""

from __future__ import annotations

import asyncio

import pytest

from ingest.runs import send as bulk
from ingest.runs.folder import RunFolder
from ingest.sources.base import Entry
from ingest.sqs.queue_client import QueueClient
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.job import Output
from serve_app.storage import open_store
from tests.support.fault_effects import Hold, cut, delay, deliver_twice, fail_entries, refuse
from tests.support.fault_proxy import Effect
from tests.support.fault_rig import RECIPE, VISIBILITY_S, Rig

NAMES = [f"j{n}" for n in range(12)]


async def test_duplicate_delivery_at_the_same_time(rig: Rig) -> None:
    hold = Hold()
    held = rig.proxy.add("s3:GetObject", hold, name="*/in/*")
    rig.proxy.add("sqs:ReceiveMessage", deliver_twice(), times=2)
    rig.send("j")
    one_job = {"max_in_flight": 1}
    async with rig.consumer(**one_job) as one, rig.consumer(**one_job) as two:
        await rig.until(lambda: held.hits >= 2)
        assert one.stats.in_flight == two.stats.in_flight == 1
        hold.let_go()
        await rig.until_settled()
    rig.check()
    assert len(rig.proxy.passed("s3:PutObject", "*/cutouts/*")) <= 2


async def test_duplicate_delivery_later(rig: Rig) -> None:
    rig.send("j")
    async with rig.consumer():
        await rig.until_settled()
        rig.sent.clear()
        rig.send("j")
        await rig.until_settled()
    outcome = rig.check()["j"]
    assert outcome.status == "done", "the record that says more counts"
    assert [item.status for item in rig.records()] == ["done", "skipped_existing"]


async def test_visibility_expires_in_the_middle_of_work_with_two_consumers(rig: Rig) -> None:
    """One of two consumers cannot extend its lease, so that the other one gets the message."""
    hold = Hold()
    rig.proxy.add("s3:GetObject", hold, name="*/in/*", times=1)
    refused = rig.proxy.add("sqs:ChangeMessageVisibilityBatch", refuse(503, "ServiceUnavailable"))
    rig.send("j")
    async with rig.consumer() as one, rig.consumer() as two:
        await rig.until(lambda: one.stats.received + two.stats.received == 2)
        await rig.until_settled()
        rig.proxy.remove(refused)
        hold.let_go()
        await rig.until(lambda: one.stats.unsettled + two.stats.unsettled == 0)
        assert one.stats.lease_lost + two.stats.lease_lost == 1
    assert rig.check()["j"].receive_count == 2
    assert len(rig.records()) == 1, "a result without a lease is not recorded"


async def test_heartbeats_that_are_refused_for_good_lose_the_lease(rig: Rig) -> None:
    rule = rig.proxy.add("sqs:ChangeMessageVisibilityBatch", refuse(403, "AccessDenied"))
    rig.proxy.add("s3:GetObject", delay(VISIBILITY_S + 1), name="*/in/*", times=1)
    rig.send("j")
    async with rig.consumer() as consumer:
        await rig.until_settled()
        assert rule.hits > 1
        await rig.until(lambda: consumer.stats.unsettled == 0)
        assert consumer.stats.lease_lost == 1
    assert rig.check()["j"].receive_count == 2


async def test_a_heartbeat_that_is_throttled_once_loses_nothing(rig: Rig) -> None:
    # Two refusals, since botocore tries again after the first.
    effect = refuse(400, "RequestThrottled")
    rule = rig.proxy.add("sqs:ChangeMessageVisibilityBatch", effect, times=2)
    rig.proxy.add("s3:GetObject", delay(VISIBILITY_S + 1.5), name="*/in/*", times=1)
    rig.send("j")
    async with rig.consumer() as consumer:
        await rig.until_settled()
        assert consumer.stats.lease_lost == 0
    assert rule.hits == 2
    assert rig.check()["j"].receive_count == 1


@pytest.mark.parametrize("sender_fault", [False, True])
async def test_deletions_that_fail_in_part_are_made_again(rig: Rig, sender_fault: bool) -> None:
    code = "ReceiptHandleIsInvalid" if sender_fault else "InternalError"
    effect = fail_entries(lambda index, _: index % 2 == 0, code, sender_fault=sender_fault)
    rule = rig.proxy.add("sqs:DeleteMessageBatch", effect, times=4)
    rig.send(*NAMES)
    async with rig.consumer():
        await rig.until_settled()
    assert rule.hits > 1
    rig.check()


async def test_of_extensions_that_fail_in_part_only_those_leases_are_lost(rig: Rig) -> None:
    effect = fail_entries(lambda index, _: index == 0, "ReceiptHandleIsInvalid", sender_fault=True)
    rule = rig.proxy.add("sqs:ChangeMessageVisibilityBatch", effect, times=1)
    rig.proxy.add("s3:GetObject", delay(VISIBILITY_S / 2), name="*/in/*", times=4)
    rig.send(*NAMES[:4])
    async with rig.consumer() as consumer:
        await rig.until_settled()
        await rig.until(lambda: consumer.stats.unsettled == 0)
        assert consumer.stats.lease_lost == 1
    assert rule.hits == 1
    outcomes = rig.check()
    assert sorted(item.receive_count for item in outcomes.values()) == [1, 1, 1, 2]


async def test_messages_that_could_not_be_sent_are_sent_again(rig: Rig) -> None:
    effect = fail_entries(lambda index, _: index % 3 == 0, "InternalError", sender_fault=False)
    rule = rig.proxy.add("sqs:SendMessageBatch", effect, times=2)
    rig.put(*NAMES)
    config = AppConfig.load(rig.args())
    assert config.ledger is not None
    plan = bulk.plan_run(
        [Entry(rig.bucket, f"in/{name}.jpg", job_id=name) for name in NAMES],
        folder=RunFolder(open_store(config), config.ledger, rig.run_id),
        description="test",
        output=Output(bucket=rig.bucket, prefix=f"cutouts/{rig.run_id}/"),
        recipe=RECIPE,
    )
    queue = QueueClient(aws_client("sqs", config.aws), rig.url)
    await asyncio.to_thread(bulk.send_run, queue, plan)
    assert rule.hits == 2
    async with rig.consumer():
        await rig.until_settled()
    rig.check()


async def test_the_answer_to_a_receive_is_lost(rig: Rig) -> None:
    rig.send(*NAMES[:4])
    rig.proxy.add("sqs:ReceiveMessage", cut(after=True), times=1)
    async with rig.consumer():
        await rig.until_settled()
    outcomes = rig.check()
    # SQS has counted a receive whose answer never arrived.
    assert {item.receive_count for item in outcomes.values()} == {2}


@pytest.mark.parametrize("after", [False, True])
async def test_the_connection_breaks_during_a_deletion(rig: Rig, after: bool) -> None:
    rule = rig.proxy.add("sqs:DeleteMessageBatch", cut(after=after), times=2)
    rig.send(*NAMES)
    async with rig.consumer():
        await rig.until_settled()
    assert rule.hits == 2
    rig.check()


QUEUE_FAULTS = {
    "too_many_in_flight": (refuse(403, "OverLimit"), "not deleting them"),
    "throttled": (refuse(400, "RequestThrottled"), "RequestThrottled"),
    "unreachable": (cut(), "Connection"),
}


@pytest.mark.parametrize("fault", QUEUE_FAULTS)
async def test_a_queue_that_does_not_answer_makes_unhealthy_and_comes_back(
    rig: Rig, fault: str
) -> None:
    effect: Effect
    effect, says = QUEUE_FAULTS[fault]
    async with rig.consumer() as consumer:
        rule = rig.proxy.add("sqs:ReceiveMessage", effect)
        rig.send("j")
        await rig.until(lambda: not consumer.healthy)
        assert consumer.reason is not None
        assert says in consumer.reason
        rig.proxy.remove(rule)
        await rig.until_settled()
        assert consumer.healthy
    rig.check()


async def test_the_queue_is_purged_under_a_job(rig: Rig) -> None:
    hold = Hold()
    rig.proxy.add("s3:GetObject", hold, name="*/in/first.jpg")
    rig.send("first")
    async with rig.consumer() as consumer:
        await hold.until_reached()
        rig.sqs.purge_queue(QueueUrl=rig.url)
        hold.let_go()
        await rig.until(lambda: consumer.stats.unsettled == 0)
        rig.send("second")
        await rig.until(lambda: "second" in rig.outcomes())
        await rig.until_settled()
        assert consumer.healthy
    assert rig.outcomes()["second"].status == "done"


async def test_the_queue_is_deleted_and_made_again(rig: Rig) -> None:
    async with rig.consumer() as consumer:
        rig.send("before")
        await rig.until_settled()
        rig.sqs.delete_queue(QueueUrl=rig.url)
        await rig.until(lambda: not consumer.healthy)
        assert consumer.reason is not None
        assert "create it" in consumer.reason
        rig.sqs.create_queue(QueueName=rig.queue_name, Attributes=rig.attributes)
        rig.send("after")
        await rig.until_settled()
        assert consumer.healthy
    rig.check()
