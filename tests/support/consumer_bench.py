"""A consumer in virtual time between an in-memory queue, a pipeline and a ledger of the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from ingest.consumer.consumer import Consumer
from serve_app.config import QueueConfig
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from tests.support.in_memory_queue import InMemoryQueue

Process = Callable[[Job], Awaitable[Outcome]]


class Ledger:
    """A ledger that stores at once, unless the test makes it unavailable or lets it refuse."""

    def __init__(self, log: list[tuple[str, str]]) -> None:
        self.records: list[Outcome] = []
        self.present = asyncio.Event()
        self.present.set()
        self.refusal: Exception | None = None
        self.closed = 0
        self._log = log

    async def record(self, outcome: Outcome) -> None:
        await self.present.wait()
        await asyncio.sleep(0.01)
        if self.refusal is not None:
            raise self.refusal
        self.records.append(outcome)
        self._log.append(("record", outcome.job_id))

    async def close(self) -> None:
        self.closed += 1

    def of(self, job_id: str) -> Outcome:
        [found] = [item for item in self.records if item.job_id == job_id]
        return found


class ConsumerBench:
    """A consumer, its queue and its ledger, with a pipeline that the test may replace."""

    def __init__(
        self, process: Callable[[Job], Awaitable[Outcome]] | None = None, **settings: Any
    ) -> None:
        queue_settings = {
            k: settings.pop(k) for k in ("has_dead_letters", "max_receives") if k in settings
        }
        self.queue = InMemoryQueue(asyncio.get_running_loop().time, **queue_settings)
        self.log = self.queue.log
        self.ledger = Ledger(self.log)
        self.part_records = settings.pop("part_records", 1_000)
        self.config = QueueConfig(url="https://sqs/q", output_bucket="out", **settings)
        self.process = process or done
        self.consumer = self.make_consumer()
        self.running: asyncio.Task[None] | None = None

    def make_consumer(self) -> Consumer:
        return Consumer(
            self.queue,
            lambda job: self.process(job),
            self.ledger,
            self.config,
            part_records=self.part_records,
            clock=asyncio.get_running_loop().time,
        )

    def start(self) -> None:
        self.running = asyncio.create_task(self.consumer.run())

    def send(self, *job_ids: str) -> list[str]:
        return [self.queue.send(message(job_id)) for job_id in job_ids]

    async def serve(self, *job_ids: str, for_s: float = 1) -> list[str]:
        sent = self.send(*job_ids)
        self.start()
        await asyncio.sleep(for_s)
        return sent

    async def stop(self) -> None:
        await self.consumer.stop()
        assert self.running is not None
        await self.running
        stats = self.consumer.stats
        assert (stats.in_flight, stats.unsettled) == (0, 0)
        assert stats.permits_free == self.config.max_in_flight

    def events(self, *names: str) -> list[str]:
        return [name for name, _ in self.log if name in names]


def message(job_id: str, **changes: Any) -> str:
    body = {
        "job_id": job_id,
        "run_id": "r",
        "source": {"bucket": "b", "key": f"{job_id}.jpg"},
        "output": {"bucket": "o"},
    }
    return json.dumps(body | changes)


def s3_event(*keys: str) -> str:
    return json.dumps(
        {
            "Records": [
                {
                    "eventSource": "aws:s3",
                    "eventName": "ObjectCreated:Put",
                    "s3": {"bucket": {"name": "b"}, "object": {"key": key}},
                }
                for key in keys
            ]
        }
    )


def success(job: Job) -> Outcome:
    return Outcome(job_id=job.job_id, run_id=job.run_id, status="done", source=job.source)


async def done(job: Job) -> Outcome:
    await asyncio.sleep(0.05)
    return success(job)


def raising(error: BaseException, times: int = 10**9) -> Process:
    left = times

    async def process(job: Job) -> Outcome:
        nonlocal left
        await asyncio.sleep(0.05)
        left -= 1
        if left >= 0:
            raise error
        return success(job)

    return process
