"""Dynamic batching that fills a batch until a slot is free to run it.

``serve.batch`` closes a batch before it waits for a free slot. Under load, the items that arrive
during a run therefore become many small batches. Here waiting items form a batch only when a slot
is free. No waiting time has to be tuned, and no item waits for an idle model.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Runs a blocking function on batches of the submitted items, in the order of arrival.

    Belongs to one event loop.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        *,
        slots: int,
        max_batch_size: int,
        threads: ThreadPoolExecutor | None = None,
    ) -> None:
        """Set up a batcher.

        Args:
            run: Function that returns one result for each item of a batch. It is called in a
                thread, and what it raises is raised to every caller whose item is in the batch.
            slots: Number of batches that run at the same time.
            max_batch_size: Largest number of items in a batch.
            threads: Threads to share with other work, or None to use the batcher's own threads.
        """
        self._run = run
        self._slots = self._free = slots
        self._max_batch_size = max_batch_size
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._has_own_threads = threads is None
        self._threads = threads or ThreadPoolExecutor(slots, "batch")
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: T) -> R:
        """Return the result of an item.

        If the caller is cancelled before the item's batch starts, the item is not run.
        """
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        self._start_batches()
        return await result

    def resize(self, *, slots: int, max_batch_size: int) -> None:
        """Change the limits for all batches that have not started yet."""
        if slots > self._slots and self._has_own_threads:
            # The old threads end after the batches that they are running.
            self._threads.shutdown(wait=False)
            self._threads = ThreadPoolExecutor(slots, "batch")
        self._free += slots - self._slots
        self._slots = slots
        self._max_batch_size = max_batch_size
        self._start_batches()

    def _start_batches(self) -> None:
        """Start batches of waiting items in the free slots."""
        while self._free > 0 and (batch := self._take_batch()):
            self._free -= 1
            task = asyncio.create_task(self._run_batch(batch))
            # The event loop keeps only a weak reference to a task.
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _take_batch(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self._max_batch_size:
            item, result = self._waiting.popleft()
            if not result.done():
                batch.append((item, result))
        return batch

    async def _run_batch(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            items = [item for item, _ in batch]
            results = await loop.run_in_executor(self._threads, self._run, items)
            if len(results) != len(items):
                raise RuntimeError(f"{len(results)} results were returned for {len(items)} items")
        except Exception as error:  # noqa: BLE001 - raised to the callers
            for _, waiting in batch:
                if not waiting.done():
                    waiting.set_exception(error)
        else:
            for (_, waiting), result in zip(batch, results, strict=True):
                if not waiting.done():
                    waiting.set_result(result)
        finally:
            self._free += 1
            self._start_batches()
