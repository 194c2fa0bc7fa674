"""Dynamic batching that fills a batch until a slot is free to run it.

``serve.batch`` closes a batch before it waits for a free slot. Under load, the items that arrive
during a run therefore become many small batches. Here waiting items form a batch only when a slot
is free. No waiting time has to be tuned, and no item waits for an idle model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from serve_app.contracts.priority import Priority
from serve_app.scheduling.slots import SlotQueue
from serve_app.scheduling.threads import PriorityThreads

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class _Item(Generic[T, R]):
    """An item that waits for its batch."""

    item: T
    result: asyncio.Future[R]
    submitted_at_s: float
    """Time by the clock of the event loop."""


class Batcher(Generic[T, R]):
    """Runs a blocking function on batches of the submitted items.

    Interactive items go first (``SlotQueue``). Within a class, the order is that of arrival.
    Belongs to one event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        slots: int,
        max_batch_size: int,
        overlap: bool = False,
        threads: PriorityThreads | None = None,
        on_batch: Callable[[int, float], None] = lambda size, waited_s: None,
    ) -> None:
        """Set up a batcher.

        Args:
            run: Function that returns one result for each item of a batch. It is called in a
                thread, and what it raises is raised to every caller whose item is in the batch.
            slots: Number of batches that run at the same time.
            max_batch_size: Largest number of items in a batch.
            overlap: Whether the batch of an interactive item may start although those of bulk
                items have all slots.
            threads: Threads to share with other work, or None to use the batcher's own threads.
            on_batch: Called with the number of items of each batch, and the seconds for which the
                first of them waited for a slot.
        """
        self._run = run
        self._max_batch_size = max_batch_size
        self._on_batch = on_batch
        self._waiting: SlotQueue[_Item[T, R]] = SlotQueue(slots, overlap=overlap)
        self._has_own_threads = threads is None
        self._threads = threads or PriorityThreads(slots, "batch", overlap=overlap)
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: T, priority: Priority = "interactive") -> R:
        """Return the result of an item.

        If the caller is cancelled before the item's batch starts, the item is not run.

        Args:
            item: Item to run.
            priority: Class of the item.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[R] = loop.create_future()
        self._waiting.append(_Item(item, result, loop.time()), priority)
        self._start_batches()
        return await result

    def resize(self, *, slots: int, max_batch_size: int) -> None:
        """Change the limits for all batches that have not started yet."""
        if slots > self._waiting.slots and self._has_own_threads:
            # The old threads end after the batches that they are running.
            self._threads.close()
            self._threads = PriorityThreads(slots, "batch", overlap=self._waiting.overlap)
        self._waiting.slots = slots
        self._max_batch_size = max_batch_size
        self._start_batches()

    def _start_batches(self) -> None:
        """Start batches of waiting items in the free slots."""
        while started := self._waiting.start_next():
            first, priority = started
            if first.result.done():
                self._waiting.end(priority)
                continue
            batch = self._fill_batch(first)
            waited_s = asyncio.get_running_loop().time() - first.submitted_at_s
            self._on_batch(len(batch), waited_s)
            task = asyncio.create_task(self._run_batch(batch, priority))
            # The event loop keeps only a weak reference to a task.
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _fill_batch(self, first: _Item[T, R]) -> list[_Item[T, R]]:
        batch = [first]
        while more := self._waiting.pop_more(self._max_batch_size - len(batch)):
            batch += [each for each in more if not each.result.done()]
        return batch

    async def _run_batch(self, batch: list[_Item[T, R]], priority: Priority) -> None:
        # Without overlap, interactive items wait for this batch, which therefore must not wait.
        urgency: Priority = priority if self._waiting.overlap else "interactive"
        try:
            items = [each.item for each in batch]
            results = await self._threads.run(urgency, self._run, items)
            if len(results) != len(items):
                raise RuntimeError(f"{len(results)} results were returned for {len(items)} items")
        except Exception as error:  # noqa: BLE001 - raised to the callers
            for each in batch:
                if not each.result.done():
                    each.result.set_exception(error)
        else:
            for each, result in zip(batch, results, strict=True):
                if not each.result.done():
                    each.result.set_result(result)
        finally:
            self._waiting.end(priority)
            self._start_batches()
