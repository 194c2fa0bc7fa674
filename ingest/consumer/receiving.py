"""Receiving: as many receives at the same time as the queue and the free permits deserve.

An idle queue has one long poll. A receive that comes back full says that there is more, so the
number of receives at the same time doubles, up to what the free permits can take. One that comes
back with less halves it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Sequence

from ingest.consumer.leases import Leases
from ingest.sqs.limits import BATCH_ENTRIES, RECEIVES_AT_ONCE
from ingest.sqs.queue import Message
from serve_app.errors import QueueUnavailable

_logger = logging.getLogger(__name__)

_EMPTY_PAUSE_S = 1.0
"""Shortest time in seconds from a receive that finds nothing to the next one."""

_LATELY_S = 1.0
"""Time in seconds for which a full receive says that there is more."""

_MORE_WAIT_S = 1
"""Time in seconds for which a receive next to others waits. The first one waits longer."""

_LOOK_AGAIN_S = 5.0
"""Time in seconds after which room is looked for again, since places are given up after a time."""


class Receiving:
    """Receives messages until it is stopped. Belongs to one event loop."""

    def __init__(
        self,
        leases: Leases,
        long_poll_s: int,
        worth: Callable[[], int],
        room: Callable[[], int],
        accept: Callable[[Sequence[Message]], Awaitable[None]],
        changed: asyncio.Event,
    ) -> None:
        """Start without receives.

        Args:
            leases: Leases of the consumer, through which it receives.
            long_poll_s: Time in seconds for which a receive of an idle queue waits for messages.
            worth: Function that returns for how many messages a receive is worth its cost if there
                is no other.
            room: Function that returns how many messages may be held in addition.
            accept: Function that takes received messages.
            changed: Event that is set whenever ``room`` may have changed, other than by time.
        """
        self._leases = leases
        self._long_poll_s = long_poll_s
        self._worth = worth
        self._room = room
        self._accept = accept
        self._changed = changed
        self._width = 1
        self._full_at = -math.inf
        self._asked = 0
        self._under_way = 0
        self._pause_until = 0.0
        self._stopping = False

    async def run(self) -> None:
        """Receive until ``stop``, and return when the last receive has ended."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as receives:
            while not self._stopping:
                pause_s = self._pause_until - loop.time()
                if pause_s <= 0 and self._is_worth_a_receive():
                    receives.create_task(self._receive(self._ask()))
                else:
                    await self._until_changed(pause_s if pause_s > 0 else _LOOK_AGAIN_S)

    def stop(self) -> None:
        """Begin no further receive. Those under way cannot be cancelled without loss."""
        self._stopping = True
        self._changed.set()

    def _free(self) -> int:
        """Return how many messages may be asked for in addition to those that are asked for."""
        return max(0, self._room() - self._asked)

    def _is_worth_a_receive(self) -> bool:
        if self._under_way == 0:
            return self._free() >= self._worth()
        # While one receive waits, the queue is empty, whatever earlier ones have brought.
        full_lately = asyncio.get_running_loop().time() < self._full_at + _LATELY_S
        return full_lately and self._under_way < self._width and self._free() >= BATCH_ENTRIES

    def _ask(self) -> int:
        """Reserve room for the messages of a receive, and return their number."""
        count = min(BATCH_ENTRIES, self._free())
        self._asked += count
        self._under_way += 1
        return count

    async def _receive(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        alone = self._under_way == 1
        wait_s = self._long_poll_s if alone else min(_MORE_WAIT_S, self._long_poll_s)
        messages: Sequence[Message] = ()
        try:
            messages = await self._leases.receive(count, wait_s)
        except QueueUnavailable as error:
            pause_s = self._leases.receive_pause_s()
            self._width = 1
            self._pause_until = loop.time() + pause_s
            _logger.warning("%s; trying again in %.1f s", error.message, pause_s)
        else:
            self._adapt(count, len(messages), began_at)
        finally:
            self._asked -= count
            self._under_way -= 1
            self._changed.set()
        if messages:
            await self._accept(messages)

    def _adapt(self, count: int, received: int, began_at: float) -> None:
        """Choose the number of receives at the same time by what one of them has brought."""
        if received == count:
            self._full_at = asyncio.get_running_loop().time()
            self._width = min(RECEIVES_AT_ONCE, 2 * self._width)
        elif received:
            self._width = max(1, self._width // 2)
        else:
            self._width = 1
            self._pause_until = began_at + _EMPTY_PAUSE_S

    async def _until_changed(self, timeout_s: float) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return
