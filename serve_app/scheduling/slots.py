"""SlotQueue: items of two classes that wait for one of a number of slots."""

from __future__ import annotations

from typing import Generic, TypeVar

from serve_app.contracts.priority import Priority
from serve_app.scheduling.turns import TwoClassQueue

T = TypeVar("T")


class SlotQueue(Generic[T]):
    """Waiting items, and the slots of those that have started. It has no lock and no event loop."""

    def __init__(self, slots: int, *, overlap: bool) -> None:
        """Make a queue whose slots are all free.

        Args:
            slots: Number of items that may have started and not ended.
            overlap: Whether an interactive item may start although bulk ones have all slots. They
                then share the processor until a bulk one ends, and no bulk one starts meanwhile.
                Without it, the interactive item gets the next slot.
        """
        self.overlap = overlap
        self.slots = slots
        self._waiting: TwoClassQueue[T] = TwoClassQueue()
        self._started: dict[Priority, int] = {"interactive": 0, "bulk": 0}

    def append(self, item: T, priority: Priority) -> None:
        """Add an item behind the others of its class."""
        self._waiting.append(item, priority)

    def start_next(self) -> tuple[T, Priority] | None:
        """Return the next item that may start and its class, or None. Its slot is taken."""
        for priority in self._waiting.order():
            if self._has_slot(priority):
                self._started[priority] += 1
                return self._waiting.pop(priority), priority
        return None

    def pop_more(self, most: int) -> list[T]:
        """Return items that share the slot of one that has started, in the order of their turns.

        Args:
            most: Largest number of items.
        """
        return [
            self._waiting.pop(self._waiting.order()[0])
            for _ in range(min(most, len(self._waiting)))
        ]

    def end(self, priority: Priority) -> None:
        """Give the slot of an item back."""
        self._started[priority] -= 1

    def _has_slot(self, priority: Priority) -> bool:
        if self.overlap and priority == "interactive":
            return self._started[priority] < self.slots
        return sum(self._started.values()) < self.slots
