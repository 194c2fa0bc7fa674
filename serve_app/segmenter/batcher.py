"""Dynamic batching that fills a batch for as long as every slot is busy.

``serve.batch`` closes a batch before it waits for a free slot, so that under load what arrives
during a run becomes many small batches. Here what waits is taken when a slot is free and not
before: no wait has to be tuned, and an idle model never makes an image wait.
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
    """Runs a blocking function on batches of what was submitted, in the order of arrival.

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
        """Make a batcher.

        Args:
            run: Takes a batch and returns a result for each item; called in a thread. What it
                raises reaches every caller of the batch.
            slots: Batches that run at the same time.
            max_batch_size: Items of one batch, at most.
            threads: Where batches run, beside other work; None for threads of its own.
        """
        self._run = run
        self._slots = self._free = slots
        self._max_batch_size = max_batch_size
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._has_own_threads = threads is None
        self._threads = threads or ThreadPoolExecutor(slots, "batch")
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: T) -> R:
        """Return the result of one item; an item whose caller gives up is not run."""
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        self._fill()
        return await result

    def resize(self, *, slots: int, max_batch_size: int) -> None:
        """Change the limits while it runs; batches that are running end as they began."""
        if slots > self._slots and self._has_own_threads:
            # Its threads end with what they run.
            self._threads.shutdown(wait=False)
            self._threads = ThreadPoolExecutor(slots, "batch")
        self._free += slots - self._slots
        self._slots = slots
        self._max_batch_size = max_batch_size
        self._fill()

    def _fill(self) -> None:
        """Give what waits to the free slots."""
        while self._free > 0 and (batch := self._take()):
            self._free -= 1
            task = asyncio.create_task(self._finish(batch))
            # The loop keeps only a weak reference to a task.
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < self._max_batch_size:
            item, result = self._waiting.popleft()
            if not result.done():
                batch.append((item, result))
        return batch

    async def _finish(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            items = [item for item, _ in batch]
            results = await loop.run_in_executor(self._threads, self._run, items)
            if len(results) != len(items):
                raise RuntimeError(f"{len(results)} results for a batch of {len(items)}")
        except Exception as error:  # noqa: BLE001 - handed on to the callers
            for _, waiting in batch:
                if not waiting.done():
                    waiting.set_exception(error)
        else:
            for (_, waiting), result in zip(batch, results, strict=True):
                if not waiting.done():
                    waiting.set_result(result)
        finally:
            self._free += 1
            self._fill()
