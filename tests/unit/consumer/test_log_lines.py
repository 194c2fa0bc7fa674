"""What others choose, such as ids of jobs, reaches a log as printable lines only."""

from __future__ import annotations

import logging

import pytest

from serve_app.errors import ReplicaLost
from tests.support.consumer_bench import ConsumerBench, raising
from tests.support.virtual_time import virtual

HOSTILE = "j\x1b[2J\nERROR forged \u202e"


@pytest.mark.parametrize("error", [RuntimeError("a defect"), ReplicaLost("it is gone")])
def test_an_id_of_a_job_is_one_printable_text(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual
    async def serve() -> None:
        bench = ConsumerBench(raising(error, 2))
        await bench.serve(HOSTILE)
        await bench.stop()

    with caplog.at_level(logging.INFO):
        serve()
    messages = [record.getMessage() for record in caplog.records]
    assert any("j\\x1b[2J\\nERROR forged" in message for message in messages)
    assert all(message.isprintable() for message in messages)
