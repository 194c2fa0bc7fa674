"""TwoClassQueue: who goes next where images of two classes wait.

Interactive items go first. A bulk item that ``MOST_PASSES`` interactive ones have passed is due,
and goes before any other, so that requests cannot starve the queue's images.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from serve_app.contracts.priority import Priority

T = TypeVar("T")

MOST_PASSES = 8
"""Number of interactive items that may go before a bulk one that waits."""


class TwoClassQueue(Generic[T]):
    """Waiting items of two classes, each class in the order of arrival."""

    def __init__(self) -> None:
        self._items: dict[Priority, deque[T]] = {"interactive": deque(), "bulk": deque()}
        self._passes = 0

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    @property
    def bulk_is_due(self) -> bool:
        """Whether enough interactive items have passed the bulk one that waits."""
        return bool(self._items["bulk"]) and self._passes >= MOST_PASSES

    def append(self, item: T, priority: Priority) -> None:
        """Add an item behind the others of its class."""
        self._items[priority].append(item)

    def prepend(self, item: T, priority: Priority) -> None:
        """Add an item before the others of its class."""
        self._items[priority].appendleft(item)

    def order(self) -> tuple[Priority, ...]:
        """Return the classes that have items, the one whose turn it is first."""
        order: tuple[Priority, ...] = ("interactive", "bulk")
        if self.bulk_is_due:
            order = ("bulk", "interactive")
        return tuple(priority for priority in order if self._items[priority])

    def first(self, priority: Priority) -> T:
        """Return the first item of a class, which stays in the queue.

        Raises:
            IndexError: The class has no item.
        """
        return self._items[priority][0]

    def pop(self, priority: Priority) -> T:
        """Remove the first item of a class, whose turn this is, and return it.

        Raises:
            IndexError: The class has no item.
        """
        item = self._items[priority].popleft()
        passes = priority == "interactive" and bool(self._items["bulk"])
        self._passes = self._passes + 1 if passes else 0
        return item

    def discard(self, item: T, priority: Priority) -> None:
        """Remove an item that gave up its turn, unless it had it already."""
        try:
            self._items[priority].remove(item)
        except ValueError:
            return
