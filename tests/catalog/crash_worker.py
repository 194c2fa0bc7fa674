"""A consumer of one catalog job that can be killed at every point where something is done.

    python -m tests.catalog.crash_worker SETTINGS JOB

It reads numbers from its standard input, and forks a child for each, which runs the job and kills
itself at the point of that number. A child that reaches its end has no such point. For each child
the parent prints the point at which it died, or ``end``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import sys
from typing import Any

from sqlalchemy import Engine, Pool, event

from ingest.catalog.catalog import Catalog
from ingest.runs.ledger import Ledger
from serve_app.config import AppConfig
from serve_app.contracts.job import CatalogJob
from serve_app.storage import open_store
from tests.catalog.stand_in_pipeline import StandInPipeline

_CALLS = ("head", "get", "put", "put_if_absent")


class Points:
    """The points that a run has passed, before and after each statement and each call of S3."""

    def __init__(self, deadly: int, teller: int) -> None:
        """Begin a run.

        Args:
            deadly: Number of the point at which the process kills itself.
            teller: File descriptor that gets the name of that point.
        """
        self._deadly, self._teller = deadly, teller
        self._number = itertools.count()

    def passed(self, name: str) -> None:
        if next(self._number) == self._deadly:
            os.write(self._teller, name.encode())
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

    def watched(self, store: Any) -> Any:
        """Return a store whose calls are points."""
        return _Watched(store, self)


class _Watched:
    def __init__(self, store: Any, points: Points) -> None:
        self._store, self._points = store, points

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        if name not in _CALLS:
            return call

        def watched(bucket: str, key: str, *args: Any, **options: Any) -> Any:
            self._points.passed(f"before {name} {key}")
            result = call(bucket, key, *args, **options)
            self._points.passed(f"after {name} {key}")
            return result

        return watched


def _short(statement: str) -> str:
    """Return what a statement changes, or its beginning if it changes nothing."""
    changes = re.findall(r"INSERT INTO \w+|UPDATE \w+(?= SET)", statement)
    return ", ".join(changes) or " ".join(statement.split())[:60]


async def run_job(settings: dict[str, Any], job: CatalogJob, points: Points) -> None:
    """Run a job and record its outcome, as a consumer does before it deletes the message."""
    config = AppConfig.load(settings)
    assert config.catalog is not None
    assert config.ledger is not None
    store = points.watched(open_store(config))
    catalog = Catalog(config.catalog, config.aws, store, 600)
    process = catalog.process(StandInPipeline(store).process)
    recorder = catalog.recorder(Ledger(store, config.ledger))
    outcome = await process.run(job)
    points.passed("before the record")
    await recorder.record(outcome)
    points.passed("after the record")
    catalog.close()


def main() -> None:
    """Fork a child for each number on the standard input."""
    settings, job = json.loads(sys.argv[1]), CatalogJob.model_validate_json(sys.argv[2])
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            points = Points(int(line), writer)
            points.watch_statements()
            asyncio.run(run_job(settings, job, points))
            os.write(writer, b"end")
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as said:
            name = said.read()
        os.waitpid(child, 0)
        print(name or "failed", flush=True)


if __name__ == "__main__":
    main()
