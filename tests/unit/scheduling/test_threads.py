"""PriorityThreads and Permits: requests do not wait behind bulk work, and cancelled work ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable

import numpy as np
import pytest

from serve_app.contracts.priority import Priority
from serve_app.scheduling.permits import Permits
from serve_app.scheduling.threads import PriorityThreads


class Steps:
    """Functions for threads, which record that they run and wait to be let go."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.began = threading.Condition()
        self.permits = threading.Semaphore(0)

    def step(self, name: str) -> str:
        with self.began:
            self.running.append(name)
            self.began.notify_all()
        assert self.permits.acquire(timeout=20)
        return name

    async def until(self, count: int) -> None:
        def wait() -> None:
            with self.began:
                assert self.began.wait_for(lambda: len(self.running) >= count, timeout=20)

        await asyncio.to_thread(wait)


async def test_a_request_starts_although_bulk_work_has_every_thread() -> None:
    steps, threads = Steps(), PriorityThreads(2, "t", overlap=True)
    bulk = [asyncio.create_task(threads.run("bulk", steps.step, f"b{n}")) for n in range(6)]
    await steps.until(2)
    request = asyncio.create_task(threads.run("interactive", steps.step, "i"))
    await steps.until(3)
    assert steps.running == ["b0", "b1", "i"]
    steps.permits.release(7)
    assert await request == "i"
    assert await asyncio.gather(*bulk) == [f"b{n}" for n in range(6)]


async def test_no_more_threads_take_part_than_calls_run_at_once() -> None:
    threads, used = PriorityThreads(2, "t", overlap=True), set[int]()

    def work() -> int:
        sum(range(5_000))
        return threading.get_ident()

    async def make_calls(priority: Priority) -> None:
        for _ in range(30):
            used.add(await threads.run(priority, work))

    for priority in ("bulk", "interactive"):
        await asyncio.gather(*(make_calls(priority) for _ in range(6)))
    assert len(used) <= 2


async def test_without_overlap_a_request_is_next() -> None:
    steps, threads = Steps(), PriorityThreads(1, "t", overlap=False)
    bulk = [asyncio.create_task(threads.run("bulk", steps.step, f"b{n}")) for n in range(4)]
    await steps.until(1)
    request = asyncio.create_task(threads.run("interactive", steps.step, "i"))
    await asyncio.sleep(0)
    steps.permits.release(5)
    await asyncio.gather(request, *bulk)
    assert steps.running == ["b0", "i", "b1", "b2", "b3"]


async def test_a_cancelled_caller_waits_for_its_running_thread() -> None:
    steps, threads = Steps(), PriorityThreads(1, "t", overlap=False)
    running = asyncio.create_task(threads.run("bulk", steps.step, "running"))
    await steps.until(1)
    waiting = asyncio.create_task(threads.run("bulk", steps.step, "waiting"))
    await asyncio.sleep(0)
    for task in (running, waiting):
        task.cancel()
    done, _ = await asyncio.wait({running, waiting}, timeout=0.2)
    assert done == {waiting}
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=0.1)
    assert not done
    steps.permits.release()
    with pytest.raises(asyncio.CancelledError):
        await running
    # The thread is free again, and the call that was cancelled did not run.
    steps.permits.release()
    assert await threads.run("bulk", steps.step, "next") == "next"
    assert steps.running == ["running", "next"]


async def test_a_time_limit_is_reported_as_one() -> None:
    steps, threads = Steps(), PriorityThreads(1, "t", overlap=False)
    asyncio.get_running_loop().call_later(0.2, steps.permits.release)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await threads.run("bulk", steps.step, "late")


async def test_errors_are_raised_to_the_caller() -> None:
    def fail() -> None:
        raise ValueError("broken")

    threads = PriorityThreads(1, "t", overlap=True)
    with pytest.raises(ValueError, match="broken"):
        await threads.run("bulk", fail)
    assert await threads.run("bulk", len, "abc") == 3


async def test_threads_keep_nothing_of_a_finished_call() -> None:
    threads = PriorityThreads(1, "t", overlap=True)
    array = np.zeros(10)
    gone = weakref.ref(array)
    doubled = await threads.run("bulk", np.copy, array)
    del array, doubled
    await threads.run("bulk", len, "")
    gc.collect()
    assert gone() is None


async def hold(permits: Permits, priority: Priority, work: Callable[[], Awaitable[None]]) -> None:
    async with permits.hold(priority):
        await work()


async def test_permits_go_to_requests_first_and_come_back_when_cancelled() -> None:
    permits, order, end = Permits(1), list[str](), asyncio.Event()

    async def record(name: str) -> None:
        order.append(name)
        await end.wait()

    kinds: list[tuple[str, Priority]] = [
        ("b0", "bulk"),
        ("b1", "bulk"),
        ("b2", "bulk"),
        ("i0", "interactive"),
    ]
    tasks = [
        asyncio.create_task(hold(permits, priority, lambda name=name: record(name)))  # type: ignore[misc]
        for name, priority in kinds
    ]
    await asyncio.sleep(0.01)
    assert order == ["b0"]
    tasks[1].cancel()
    tasks[0].cancel()
    end.set()
    await asyncio.wait(tasks, timeout=10)
    assert order == ["b0", "i0", "b2"]
