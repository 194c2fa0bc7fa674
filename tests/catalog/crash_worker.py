"""A consumer of one catalog job that can be killed at every point where something is done.

    python -m tests.catalog.crash_worker SETTINGS

It reads numbers from its standard input, and forks a child for each. The child receives a message,
runs its job, and kills itself at the point of that number. A child that ends its message has no
such point. For each child the parent prints two lines: the receipt handle of the message, and the
point at which the child died, or ``end``.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import os
import re
import signal
import sys
from typing import Any

from sqlalchemy import Engine, Pool, event

from ingest.sqs.queue import SqsQueue
from serve_app.config import AppConfig
from serve_app.storage import open_store
from tests.catalog.consuming import consuming_catalog
from tests.catalog.stand_in_pipeline import StandInPipeline


class Points:
    """The points that a run has passed, before and after each statement and each call of AWS."""

    def __init__(self, deadly: int, writer: int) -> None:
        """Begin a run.

        Args:
            deadly: Number of the point at which the process kills itself.
            writer: File descriptor that gets the message's handle and the name of that point.
        """
        self._deadly, self._writer = deadly, writer
        self._number = itertools.count()
        self._received = False

    def write(self, line: str) -> None:
        os.write(self._writer, f"{line}\n".encode())

    def received(self, handle: str) -> None:
        """Count points from now on: before, there is nothing to lose."""
        self._received = True
        self.write(handle)

    def passed(self, name: str) -> None:
        if self._received and next(self._number) == self._deadly:
            self.write(name)
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_statements(self) -> None:
        """Watch the statements of every engine, their COMMITs included."""

        def before(_: Any, __: Any, statement: str, *rest: Any) -> None:
            self.passed(f"before {_short(statement)}")

        def after(_: Any, __: Any, statement: str, *rest: Any) -> None:
            self.passed(f"after {_short(statement)}")

        event.listen(Engine, "before_cursor_execute", before)
        event.listen(Engine, "after_cursor_execute", after)
        event.listen(Engine, "commit", lambda _: self.passed("before COMMIT"))
        # A connection goes back to the pool after its transaction has ended.
        event.listen(Pool, "checkin", lambda *_: self.passed("after COMMIT"))


class WatchedStore:
    """A store whose every call is two points."""

    def __init__(self, store: Any, points: Points) -> None:
        self._store, self._points = store, points

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        if not callable(call):
            return call

        def watched(bucket: str, key: str, *args: Any, **options: Any) -> Any:
            self._points.passed(f"before {name} {key}")
            result = call(bucket, key, *args, **options)
            self._points.passed(f"after {name} {key}")
            return result

        return watched


class WatchedQueue:
    """A queue whose every call is two points, apart from receives, which come at any time."""

    def __init__(self, queue: Any, points: Points) -> None:
        self._queue, self._points = queue, points
        self.deleted = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._queue, name)
        if not inspect.iscoroutinefunction(call):
            return call

        async def watched(*args: Any) -> Any:
            self._points.passed(f"before {name} of the queue")
            result = await call(*args)
            self._points.passed(f"after {name} of the queue")
            if name == "delete":
                self.deleted.set()
            return result

        return watched

    async def receive(self, *args: Any) -> Any:
        messages = await self._queue.receive(*args)
        for message in messages:
            self._points.received(message.receipt_handle)
        return messages


def _short(statement: str) -> str:
    """Return what a statement changes, or its beginning if it changes nothing."""
    changes = re.findall(r"INSERT INTO \w+|UPDATE \w+(?= SET)", statement)
    return ", ".join(changes) or " ".join(statement.split())[:60]


async def serve_one(settings: dict[str, Any], points: Points) -> None:
    """Run a consumer until it has deleted a message."""
    config = AppConfig.load(settings)
    assert config.queue is not None
    store: Any = WatchedStore(open_store(config), points)
    queue = await SqsQueue.open(config.queue, config.aws)
    watched: Any = WatchedQueue(queue, points)
    async with consuming_catalog(config, watched, store, StandInPipeline(store).process):
        await watched.deleted.wait()
    await queue.close()


def main() -> None:
    """Fork a child for each number on the standard input."""
    settings = json.loads(sys.argv[1])
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            points = Points(int(line), writer)
            points.watch_statements()
            asyncio.run(serve_one(settings, points))
            points.write("end")
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as said:
            lines = said.read().splitlines()
        os.waitpid(child, 0)
        # A child that raises names neither a point nor its end.
        handle, point = lines if len(lines) == 2 else ("", "failed")
        print(handle, point, sep="\n", flush=True)


if __name__ == "__main__":
    main()
