"""A model of a message's states, with consumers that crash at any step, in virtual time.

Hypothesis chooses what happens: messages arrive, consumers start, stop and crash, the queue and
the ledger fail or become unavailable, time passes. After every step, two invariants are checked:
every message is in exactly one of three places, and none was deleted before its record was stored.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ingest.consumer.consumer import Consumer
from ingest.consumer.lease import Acknowledge
from serve_app.config import QueueConfig
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import (
    InternalError,
    NoSubject,
    QueueUnavailable,
    ReplicaLost,
    StorageUnavailable,
)
from tests.support.in_memory_queue import InMemoryQueue
from tests.support.virtual_time import VirtualLoop

CALLS = ["receive", "extend", "release", "delete", "dead_letter"]
FATES = ["done", "permanent", "lost", "storage", "internal", "hangs", "unreadable"]
LONG_S = 1_800.0


class Store:
    """The store of the ledger, which outlives consumers."""

    def __init__(self) -> None:
        self.records: list[Outcome] = []
        self.present = asyncio.Event()
        self.present.set()


class Writer:
    """The ledger of one consumer, whose waiting records are lost with the consumer."""

    def __init__(self, store: Store, log: list[tuple[str, str]]) -> None:
        self._store, self._log = store, log

    async def record(self, outcome: Outcome) -> None:
        await asyncio.sleep(0.05)
        await self._store.present.wait()
        self._store.records.append(outcome)
        self._log.append(("record", outcome.job_id))

    async def close(self) -> None:
        return


class Line:
    """A connection to the queue or the ledger, which ends when its consumer crashes."""

    def __init__(self, end: Any) -> None:
        self._end = end
        self.dead = False

    @property
    def max_receives(self) -> int:
        return int(self._end.max_receives)

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            await self._pass()
            answer = await getattr(self._end, name)(*args, **kwargs)
            await self._pass()
            return answer

        return call

    async def _pass(self) -> None:
        if self.dead:
            await asyncio.Event().wait()


class States(RuleBasedStateMachine):
    consumer_class: type[Consumer] = Consumer

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.loop = self.runner.get_loop()
        self.fates: dict[str, str] = {}
        self.jobs: dict[str, str] = {}
        self.failing: dict[str, str] = {}
        self.refused: set[str] = set()
        self.store = Store()
        self.consumers: list[tuple[Consumer, asyncio.Task[None], tuple[Line, Line]]] = []

    def play(self, scene: Coroutine[Any, Any, None]) -> None:
        self.runner.run(scene)

    @initialize(
        max_receives=st.integers(1, 4),
        has_dead_letters=st.booleans(),
        permits=st.sampled_from([1, 3]),
        visibility_s=st.sampled_from([3, 30]),
    )
    def begin(
        self, max_receives: int, has_dead_letters: bool, permits: int, visibility_s: int
    ) -> None:
        async def scene() -> None:
            self.queue = InMemoryQueue(
                self.loop.time,
                max_receives=max_receives,
                has_dead_letters=has_dead_letters,
                refuse=lambda what, _: what in self.refused,
            )
            self.queue.fail = lambda what: what in self.failing

        self.config = QueueConfig(
            url="https://sqs/q",
            visibility_timeout_s=visibility_s,
            max_in_flight=permits,
            job_deadline_s=60,
            stop_grace_s=2,
            long_poll_s=20,
        )
        self.has_dead_letters = has_dead_letters
        self.play(scene())

    async def process(self, job: Job) -> Outcome:
        fate = self.fates[job.job_id]
        await asyncio.sleep(1_000 if fate == "hangs" else 1)
        errors = {
            "permanent": NoSubject("nothing"),
            "lost": ReplicaLost("gone"),
            "storage": StorageUnavailable("slow down"),
            "internal": InternalError("odd"),
        }
        if fate in errors:
            raise errors[fate]
        return Outcome(job_id=job.job_id, run_id=job.run_id, status="done")

    # what happens

    @rule(fate=st.sampled_from(FATES), count=st.integers(1, 4))
    def send(self, fate: str, count: int) -> None:
        for _ in range(count):
            job_id = f"j{len(self.jobs)}"
            fields = {"job_id": job_id, "source": {"bucket": "b", "key": "k"}}
            body = json.dumps(fields | {"output": {"bucket": "o"}})
            message_id = self.queue.send("{" if fate == "unreadable" else body)
            self.jobs[message_id] = message_id if fate == "unreadable" else job_id
            self.fates[job_id] = fate

    @precondition(lambda self: len(self.consumers) < 2)
    @rule()
    def start(self) -> None:
        async def scene() -> None:
            lines = Line(self.queue), Line(Writer(self.store, self.queue.log))
            consumer = self.consumer_class(
                lines[0], self.process, lines[1], self.config, clock=self.loop.time
            )
            self.consumers.append((consumer, asyncio.create_task(consumer.run()), lines))

        self.play(scene())

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.3, 1.1, 4.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.play(asyncio.sleep(seconds))

    @precondition(lambda self: self.consumers)
    @rule(which=st.integers(0, 1))
    def crash(self, which: int) -> None:
        """Cut a consumer off. A call that it has made may still be carried out."""
        _, _, lines = self.consumers.pop(which % len(self.consumers))
        for line in lines:
            line.dead = True

    @precondition(lambda self: self.consumers)
    @rule()
    def stop(self) -> None:
        async def scene() -> None:
            consumer, running, _ = self.consumers.pop(0)
            await consumer.stop()
            await running
            assert (consumer.stats.in_flight, consumer.stats.unsettled) == (0, 0)

        self.play(scene())

    @rule(what=st.sampled_from(CALLS), works=st.booleans())
    def queue_calls(self, what: str, works: bool) -> None:
        if works:
            self.failing.pop(what, None)
        else:
            self.failing[what] = QueueUnavailable.code

    @rule(what=st.sampled_from(["extend", "delete"]), works=st.booleans())
    def batch_entries(self, what: str, works: bool) -> None:
        (self.refused.discard if works else self.refused.add)(what)

    @rule(unavailable=st.booleans())
    def ledger(self, unavailable: bool) -> None:
        (self.store.present.clear if unavailable else self.store.present.set)()

    @rule(fate=st.sampled_from(["done", "permanent"]))
    def repair(self, fate: str) -> None:
        """Let the jobs that fail for a passing reason end in another way."""
        for job_id, known in self.fates.items():
            if known in {"lost", "storage", "internal", "hangs"}:
                self.fates[job_id] = fate

    # invariants

    @invariant()
    def nothing_is_deleted_before_its_record_is_stored(self) -> None:
        if not hasattr(self, "queue"):
            return
        recorded: set[str] = set()
        for event, name in self.queue.log:
            if event == "record":
                recorded.add(name)
            if event == "delete":
                assert self.jobs[name] in recorded, f"{name} was deleted without a record"

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        if not hasattr(self, "queue"):
            return
        deleted = [name for event, name in self.queue.log if event == "delete"]
        moved = [name for event, name in self.queue.log if event == "redrive"]
        ended = deleted + moved
        assert len(ended) == len(set(ended)), "ended twice"
        assert set(ended).isdisjoint(self.queue.stored)
        assert set(ended) | set(self.queue.stored) == set(self.jobs), "a message has vanished"
        lettered = {item.message_id for item in self.queue.dead}
        for name in deleted:
            records = [item for item in self.store.records if item.job_id == self.jobs[name]]
            done = any(item.status == "done" for item in records)
            assert done or name in lettered or not self.has_dead_letters, "a failure has vanished"

    def teardown(self) -> None:
        try:
            if hasattr(self, "queue"):
                self.end()
        finally:
            self.runner.close()

    def end(self) -> None:
        """Let everything work again, and check that every message ends."""
        self.failing.clear()
        self.refused.clear()
        self.store.present.set()
        self.repair("done")
        if not self.consumers:
            self.start()
        self.wait(LONG_S)
        while self.consumers:
            self.stop()
        self.nothing_is_deleted_before_its_record_is_stored()
        self.every_message_is_in_one_place()
        assert not self.queue.stored, "a message never ended"
        for message_id, job_id in self.jobs.items():
            records = [item for item in self.store.records if item.job_id == job_id]
            letters = [item for item in self.queue.dead if item.message_id == message_id]
            assert records or letters, f"{job_id} has no outcome"


CHECKED = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_every_message_ends_in_one_place_whatever_crashes() -> None:
    run_state_machine_as_test(States, settings=CHECKED)


# Consumers with a defect. A model that does not find each of them would prove nothing.


class DeletesFirst(Consumer):
    async def _settle(self, lease: Any, outcomes: Any) -> None:
        if all(outcome.status != "failed" for outcome in outcomes):
            await self._leases.settle(lease, Acknowledge())
        await super()._settle(lease, outcomes)


class IgnoresTheLedger(Consumer):
    async def _store(self, outcomes: Any, lease: Any) -> bool:
        storing = asyncio.ensure_future(super()._store(outcomes, lease))
        await asyncio.wait({storing}, timeout=0.01)
        storing.cancel()
        return True


class DeletesWhatItCannotDeadLetter(Consumer):
    async def _settle(self, lease: Any, outcomes: Any) -> None:
        if any(outcome.retry == "permanent" for outcome in outcomes):
            await self._store(outcomes, lease)
            await self._leases.settle(lease, Acknowledge())
            return
        await super()._settle(lease, outcomes)


class ReleasesNothingAtTheEnd(Consumer):
    async def _settle(self, lease: Any, outcomes: Any) -> None:
        if any(outcome.retry == "transient" for outcome in outcomes):
            await asyncio.Event().wait()
        await super()._settle(lease, outcomes)


@pytest.mark.parametrize(
    "defect",
    [DeletesFirst, IgnoresTheLedger, DeletesWhatItCannotDeadLetter, ReleasesNothingAtTheEnd],
)
def test_the_model_finds_a_defect(defect: type[Consumer]) -> None:
    class Defective(States):
        consumer_class = defect

    searched = settings(
        CHECKED, max_examples=1_000, database=None, derandomize=True, phases=[Phase.generate]
    )
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(Defective, settings=searched)
