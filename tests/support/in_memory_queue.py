"""A queue in memory that behaves like SQS, on a clock that the test controls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ingest.sqs.queue import Message
from serve_app.errors import QueueUnavailable


@dataclass
class Stored:
    message_id: str
    body: str
    sent_at: datetime
    visible_at: float
    receive_count: int = 0
    handle: str | None = None


@dataclass(frozen=True)
class DeadLetter:
    message_id: str
    body: str
    code: str | None
    """Error code, or None if SQS's redrive policy moved the message."""
    reason: str | None
    job_id: str | None


class InMemoryQueue:
    """A queue with visibility, receive counts, receipt handles that expire, and a redrive policy.

    ``fail`` decides for every call whether it fails, and ``refuse`` for every entry of a batch.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        max_receives: int = 3,
        has_dead_letters: bool = True,
        fail: Callable[[str], bool] = lambda what: False,
        refuse: Callable[[str, str], bool] = lambda what, message_id: False,
        latency_s: float = 0.01,
    ) -> None:
        self._clock = clock
        self._max_receives = max_receives
        self.has_dead_letters = has_dead_letters
        self.fail = fail
        self.refuse = refuse
        self.latency_s = latency_s
        self.stored: dict[str, Stored] = {}
        self.dead: list[DeadLetter] = []
        self.log: list[tuple[str, str]] = []
        """Events with the id of their message, in order."""
        self.calls: list[tuple[str, int]] = []
        """Calls with the number of their entries, in order."""
        self._ids = itertools.count(1)
        self._handles = itertools.count(1)
        self._arrived = asyncio.Event()

    def send(self, body: str) -> str:
        message_id = f"m{next(self._ids)}"
        now = self._clock()
        sent_at = datetime.fromtimestamp(now, UTC)
        self.stored[message_id] = Stored(message_id, body, sent_at, visible_at=now)
        self._arrived.set()
        return message_id

    @property
    def max_receives(self) -> int:
        return self._max_receives

    async def receive(self, max_messages: int, wait_s: int, visibility_s: int) -> list[Message]:
        assert 1 <= max_messages <= 10
        assert 0 <= wait_s <= 20
        await self._answer("receive", max_messages)
        until = self._clock() + wait_s
        while True:
            found = self._deliver(max_messages, visibility_s)
            left_s = until - self._clock()
            if found or left_s <= 0:
                return found
            nexts = [item.visible_at - self._clock() for item in self.stored.values()]
            self._arrived.clear()
            try:
                async with asyncio.timeout(max(0.001, min([left_s, *nexts]))):
                    await self._arrived.wait()
            except TimeoutError:
                pass

    async def extend(self, handles: Sequence[str], visibility_s: float) -> set[str]:
        await self._answer("extend", len(handles))
        failed = set()
        for handle in handles:
            item = self._holder(handle)
            hidden = item is not None and item.visible_at > self._clock()
            if item is None or not hidden or self.refuse("extend", item.message_id):
                failed.add(handle)
                continue
            item.visible_at = self._clock() + round(visibility_s)
            self.log.append(("extend", item.message_id))
            self._arrived.set()
        return failed

    async def delete(self, handles: Sequence[str]) -> set[str]:
        await self._answer("delete", len(handles))
        failed = set()
        for handle in handles:
            item = self._holder(handle)
            if item is None or self.refuse("delete", item.message_id):
                failed.add(handle)
            else:
                del self.stored[item.message_id]
                self.log.append(("delete", item.message_id))
        return failed

    async def release(self, delays_s: Mapping[str, float]) -> set[str]:
        await self._answer("release", len(delays_s))
        failed = set()
        for handle, delay_s in delays_s.items():
            item = self._holder(handle)
            if item is None or item.visible_at <= self._clock():
                failed.add(handle)
                continue
            item.visible_at = self._clock() + round(delay_s)
            self.log.append(("release", item.message_id))
            self._arrived.set()
        return failed

    async def dead_letter(
        self, message: Message, code: str, reason: str, job_id: str | None = None
    ) -> bool:
        await self._answer("dead_letter", 1)
        if not self.has_dead_letters:
            return False
        self.dead.append(DeadLetter(message.message_id, message.body, code, reason, job_id))
        self.log.append(("dead_letter", message.message_id))
        return True

    async def _answer(self, what: str, entries: int) -> None:
        assert 1 <= entries <= 10
        self.calls.append((what, entries))
        await asyncio.sleep(self.latency_s)
        if self.fail(what):
            raise QueueUnavailable(f"{what}: the queue is unavailable")

    def _deliver(self, max_messages: int, visibility_s: int) -> list[Message]:
        found: list[Message] = []
        for item in list(self.stored.values()):
            if len(found) == max_messages:
                break
            if item.visible_at > self._clock():
                continue
            if self.has_dead_letters and item.receive_count >= self._max_receives:
                del self.stored[item.message_id]
                self.dead.append(DeadLetter(item.message_id, item.body, None, None, None))
                self.log.append(("redrive", item.message_id))
                continue
            item.receive_count += 1
            item.handle = f"{item.message_id}-{next(self._handles)}"
            item.visible_at = self._clock() + visibility_s
            self.log.append(("receive", item.message_id))
            found.append(
                Message(item.message_id, item.handle, item.body, item.receive_count, item.sent_at)
            )
        return found

    def _holder(self, handle: str) -> Stored | None:
        """Return the message whose newest delivery has this handle."""
        item = self.stored.get(handle.rpartition("-")[0])
        return item if item is not None and item.handle == handle else None
