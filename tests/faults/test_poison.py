"""Messages that cannot be parsed, and messages that come back from the dead-letter queue."""

from __future__ import annotations

import asyncio

import pytest

from ingest.sqs.limits import PAYLOAD_BYTES
from tests.support.fault_rig import Rig

POISON = {
    "not_json": '{"source": ',
    "a_list": "[]",
    "an_unknown_schema": '{"schema": 99, "job_id": "x", "source": {"bucket": "b", "key": "k"}}',
    "a_number_for_a_key": '{"source": {"bucket": "b", "key": 7}, "output": {"bucket": "b"}}',
    "a_megabyte": "x" * PAYLOAD_BYTES,
    "almost_a_megabyte": "x" * (PAYLOAD_BYTES - 60),
}


@pytest.mark.parametrize("name", POISON)
async def test_poison_is_dead_lettered_once_and_its_neighbours_succeed(rig: Rig, name: str) -> None:
    rig.send("before")
    rig.send_body(POISON[name])
    rig.send("after")
    async with rig.consumer() as consumer:
        await rig.until_settled()
        assert consumer.stats.received == 3
    rig.check()
    [record] = rig.records("invalid")
    assert record.code == "invalid_message"
    [code] = rig.dead_letters().values()
    # SQS's limit includes the attributes. A body that reaches it leaves them no room.
    assert code == (None if name == "a_megabyte" else "invalid_message")


async def test_redriving_the_dead_letters_is_idempotent(rig: Rig) -> None:
    rig.sent += ["good", "repaired"]
    rig.send_body(rig.message("repaired"))
    rig.sent.clear()
    rig.send("good")
    async with rig.consumer():
        await rig.until_settled()
        assert rig.outcomes()["repaired"].code == "source_not_found"
        rig.put("repaired")
        for _ in range(2):
            # The second one acts as if the first had not come to delete the dead letters.
            await asyncio.to_thread(_send_dead_letters_again, rig)
            await rig.until_settled()
    outcomes = rig.check()
    assert outcomes["repaired"].status == "done"
    assert len(rig.proxy.passed("s3:PutObject", "*/cutouts/*")) == 2


def _send_dead_letters_again(rig: Rig) -> None:
    found = rig.sqs.receive_message(
        QueueUrl=rig.dead_url, MaxNumberOfMessages=10, VisibilityTimeout=0
    )
    [letter] = found["Messages"]
    rig.send_body(letter["Body"])
