"""Batch calls of a queue, formed from what single tasks want of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Generic, TypeVar

from ingest.sqs.limits import BATCH_ENTRIES

T = TypeVar("T")

_LINGER_S = 0.05


class BatchedCalls(Generic[T]):
    """Makes one call for up to ten items, after a pause in which others may join the first.

    The call decides on its own when it has dealt with an item. This class only collects.
    """

    def __init__(self, call: Callable[[list[T]], Coroutine[Any, Any, None]]) -> None:
        """Start without items.

        Args:
            call: Function that deals with at most ten items, in a task of its own.
        """
        self._call = call
        self._items: list[T] = []
        self._calls: set[asyncio.Task[None]] = set()

    def add(self, item: T) -> None:
        """Let an item join the next call."""
        self._items.append(item)
        if len(self._items) >= BATCH_ENTRIES:
            self._start()
        elif len(self._items) == 1:
            asyncio.get_running_loop().call_later(_LINGER_S, self._start)

    def close(self) -> None:
        """Cancel the calls under way, and forget the items that wait."""
        self._items = []
        for task in self._calls:
            task.cancel()

    def _start(self) -> None:
        items, self._items = self._items, []
        if items:
            task = asyncio.create_task(self._call(items))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)


def batches_of(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield items in groups that fit into one batch call."""
    for start in range(0, len(items), BATCH_ENTRIES):
        yield items[start : start + BATCH_ENTRIES]
