"""The order of two classes: requests first, and bulk images not starved."""

from __future__ import annotations

from serve_app.contracts.priority import Priority
from serve_app.scheduling.slots import SlotQueue
from serve_app.scheduling.turns import MOST_PASSES, TwoClassQueue


def drain(queue: TwoClassQueue[str]) -> list[str]:
    return [queue.pop(queue.order()[0]) for _ in range(len(queue))]


def filled(*items: str) -> TwoClassQueue[str]:
    """Return a queue with items, whose first letter is their class."""
    queue: TwoClassQueue[str] = TwoClassQueue()
    for item in items:
        queue.append(item, "interactive" if item[0] == "i" else "bulk")
    return queue


def test_interactive_items_pass_bulk_ones_in_the_order_of_arrival() -> None:
    assert drain(filled("b1", "b2", "i1", "b3", "i2")) == ["i1", "i2", "b1", "b2", "b3"]


def test_a_bulk_item_is_passed_a_limited_number_of_times() -> None:
    requests = [f"i{n}" for n in range(3 * MOST_PASSES)]
    order = drain(filled("b1", "b2", *requests))
    assert order.index("b1") == MOST_PASSES
    assert order.index("b2") == 2 * MOST_PASSES + 1


def test_only_items_that_pass_a_waiting_one_count() -> None:
    queue = filled(*[f"i{n}" for n in range(MOST_PASSES)])
    drain(queue)
    for item in ("b", "i"):
        queue.append(item, "interactive" if item == "i" else "bulk")
    assert drain(queue) == ["i", "b"]


def started(queue: SlotQueue[str]) -> list[str]:
    """Return the items that can start now."""
    found = []
    while item := queue.start_next():
        found.append(item[0])
    return found


def slots(overlap: bool, **items: Priority) -> SlotQueue[str]:
    queue: SlotQueue[str] = SlotQueue(2, overlap=overlap)
    for item, priority in items.items():
        queue.append(item, priority)
    return queue


def test_without_overlap_an_interactive_item_gets_the_next_slot() -> None:
    queue = slots(False, b1="bulk", b2="bulk", b3="bulk")
    assert started(queue) == ["b1", "b2"]
    queue.append("i1", "interactive")
    assert started(queue) == []
    queue.end("bulk")
    assert started(queue) == ["i1"]


def test_with_overlap_interactive_items_do_not_wait_for_bulk_ones() -> None:
    queue = slots(True, b1="bulk", b2="bulk", b3="bulk")
    assert started(queue) == ["b1", "b2"]
    for item in ("i1", "i2", "i3"):
        queue.append(item, "interactive")
    assert started(queue) == ["i1", "i2"]
    # Four have started for two slots, so none follows the bulk ones until two have ended.
    queue.end("bulk")
    queue.end("bulk")
    assert started(queue) == []
    queue.end("interactive")
    assert started(queue) == ["i3"]
    queue.end("interactive")
    assert started(queue) == ["b3"]


def test_interactive_items_alone_have_no_more_than_the_slots() -> None:
    queue = slots(True, i1="interactive", i2="interactive", i3="interactive")
    assert started(queue) == ["i1", "i2"]


def test_bulk_items_start_while_interactive_ones_never_stop_coming() -> None:
    queue = slots(True, b1="bulk", b2="bulk")
    queue.start_next()
    queue.start_next()
    queue.append("waiting", "bulk")
    running: list[Priority] = ["bulk", "bulk"]
    for step in range(10 * MOST_PASSES):
        queue.append(f"i{step}", "interactive")
        while item := queue.start_next():
            if item[0] == "waiting":
                return
            running.append(item[1])
        # What started first ends first.
        queue.end(running.pop(0))
    raise AssertionError("the bulk item never started")
