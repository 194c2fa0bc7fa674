"""PriorityThreads: threads that run what requests wait for first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from serve_app.contracts.priority import Priority
from serve_app.scheduling.slots import SlotQueue

T = TypeVar("T")


class _Call:
    """A function, its arguments and its future result."""

    def __init__(self, function: Callable[..., Any], args: tuple[object, ...]) -> None:
        self._function = function
        self._args = args
        self.result: Future[Any] = Future()

    def run(self) -> Callable[[], None]:
        """Call the function, unless the caller has given up.

        Returns:
            Function that gives the caller the result.
        """
        if not self.result.set_running_or_notify_cancel():
            return lambda: None
        try:
            value = self._function(*self._args)
        except BaseException as error:  # noqa: BLE001 - raised to the caller
            return partial(self.result.set_exception, error)
        return partial(self.result.set_result, value)


class PriorityThreads:
    """A number of threads, and the calls that wait for them. Any event loop may use it."""

    def __init__(self, threads: int, name: str, *, overlap: bool) -> None:
        """Make the threads. Each starts when it is needed.

        Args:
            threads: Number of calls that run at the same time.
            name: Name of the threads.
            overlap: Whether an interactive call starts at once although bulk ones have all threads.
                Up to ``threads`` more then run for as long as the bulk calls take
                (``SlotQueue``).
        """
        self._calls: SlotQueue[_Call] = SlotQueue(threads, overlap=overlap)
        self._lock = threading.Lock()
        # The thread that became idle last goes first. Its memory is in the processor's cache, and
        # memory of its own is a few hundred MB that the others do not need as well.
        self._idle = [
            ThreadPoolExecutor(1, f"{name}_{number}")
            for number in range(2 * threads if overlap else threads)
        ]
        self._threads = tuple(self._idle)

    async def run(self, priority: Priority, function: Callable[..., T], *args: object) -> T:
        """Return the result of a function that is called in a thread.

        If the caller is cancelled, a call that has not begun is dropped. One that runs is waited
        for, so that the caller holds its permits for as long as the thread uses what they bound.

        Args:
            priority: Class of the call.
            function: Function to call.
            *args: Arguments of the function.
        """
        call = _Call(function, args)
        with self._lock:
            self._calls.append(call, priority)
            started = self._calls.start_next()
            if started is not None:
                thread = self._idle.pop()
                thread.submit(self._run_calls, thread, *started)
        result = asyncio.wrap_future(call.result)
        try:
            value: T = await asyncio.shield(result)
        except asyncio.CancelledError:
            if not call.result.cancel():
                while not result.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait({result})
            raise
        return value

    def close(self) -> None:
        """Let the threads end when the calls that have begun or wait have ended."""
        for thread in self._threads:
            thread.shutdown(wait=False)

    def _run_calls(self, thread: ThreadPoolExecutor, call: _Call, priority: Priority) -> None:
        """Run a call, and then others for as long as some wait."""
        started: tuple[_Call, Priority] | None = call, priority
        while started is not None:
            call, priority = started
            give_result = call.run()
            with self._lock:
                self._calls.end(priority)
                started = self._calls.start_next()
                if started is None:
                    # Before the caller has the result, so that its next call finds this thread.
                    self._idle.append(thread)
            give_result()
