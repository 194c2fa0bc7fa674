"""A storm: users and the application change books and queue jobs, which two consumers work on.

Each consumer has a process of its own, in which it runs as SqsIngest makes it, with a pipeline that
copies images. Every message is delivered to both consumers at once.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from ingest.local.processes import die_with_parent
from serve_app.contracts.job import CatalogJob
from serve_app.storage.local import LocalStore
from serve_app.storage.protocol import ObjectInfo
from tests.catalog.bench import in_run
from tests.catalog.collection import Collection, photographs
from tests.catalog.quick_bench import QuickBench
from tests.catalog.stand_in_pipeline import StandInPipeline
from tests.catalog.users import Looks, User

RUN = "storm"
_BOOKS = 50
_USERS = 3
_CONSUMERS = 2
_IN_FLIGHT = 64
"""More than at work: a job whose book was deleted waits for its row, and holds no thread."""
_LAST_JOBS = 100
"""Number of jobs that are queued once the users have stopped."""
_START_S = 60
_MODEL = "u2net"

Send = Callable[[CatalogJob], object]


class StormStore(LocalStore):
    """Files that processes share. All results are made with one model, so that none keeps it."""

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        info = super().head(bucket, key, version_id)
        return None if info is None else replace(info, model=_MODEL)


class StormBench(QuickBench):
    """A bench of one consumer, whose objects are those of the other one too."""

    def __init__(self, folder: Path, collection: Collection) -> None:
        super().__init__(folder, collection, max_in_flight=_IN_FLIGHT, long_poll_s=1)
        self.folder = folder
        self.store = StormStore(folder)
        self.pipeline = StandInPipeline(self.store, _MODEL)


@dataclass(frozen=True)
class Storm:
    """What a storm has shown."""

    sent: list[str]
    """Ids of the jobs whose messages were sent."""
    rolled_back: set[str]
    """Ids of those jobs whose rows were never committed."""
    deleted: set[int]
    """Ids of the books that users have deleted."""
    touched: dict[int, datetime]
    """Time after a user's last change of the images of each book."""
    seconds: list[float]
    """Seconds that each request of a user took, in order."""
    waits: list[float]
    """Seconds for which each of them waited for a consumer, in order."""


def p99_ms(seconds: Sequence[float]) -> float:
    """Return the time in milliseconds that 99 % of ordered times stay below."""
    return seconds[int(len(seconds) * 0.99)] * 1000


def consume(url: str, folder: Path, messages: Any, ready: Any) -> None:
    """Consume messages until one is None. Runs in a process of its own."""

    async def serve(bench: StormBench) -> None:
        async with bench.consuming():
            ready.release()
            while (job := await asyncio.to_thread(messages.get)) is not None:
                bench.send(job)
            await bench.drained()

    if sys.platform == "linux":
        die_with_parent()
    with closing(Collection(url)) as collection:
        asyncio.run(serve(StormBench(folder, collection)))


@contextmanager
def consuming(bench: StormBench) -> Iterator[Send]:
    """Run consumers, and let them end what was sent.

    Args:
        bench: Bench with the database and the objects of the consumers.

    Yields:
        A function that sends the message of a job to each of them.
    """
    spawning = multiprocessing.get_context("spawn")
    inboxes: list[Any] = [spawning.Queue() for _ in range(_CONSUMERS)]
    ready = spawning.Semaphore(0)
    processes = [
        spawning.Process(
            target=consume, args=(bench.collection.url, bench.folder, inbox, ready), daemon=True
        )
        for inbox in inboxes
    ]

    def send(job: CatalogJob | None) -> None:
        for inbox in inboxes:
            inbox.put(job)

    try:
        for process in processes:
            process.start()
        for _ in processes:
            assert ready.acquire(timeout=_START_S), "a consumer did not start"
        yield send
        send(None)
        for process in processes:
            process.join()
            assert process.exitcode == 0
    finally:
        for process, inbox in zip(processes, inboxes, strict=True):
            if process.is_alive():
                process.kill()
                process.join()
            # What nobody reads any more must not hold the end of this process.
            inbox.cancel_join_thread()
            inbox.close()


class Application:
    """The application, which queues jobs for any image of any book."""

    def __init__(self, bench: StormBench, send: Send) -> None:
        self._bench, self._send = bench, send
        self._random = random.Random(0)
        self.sent: list[str] = []
        """Ids of the jobs whose messages were sent. Users send some too."""
        self.books: list[int] = []
        """Ids of the books, which users replace."""
        for _ in range(_BOOKS):
            book, _images = bench.collection.add_book(*photographs(self._random.randint(1, 12)))
            bench.upload(book)
            self.books.append(book)

    def send(self, job: CatalogJob) -> None:
        self.sent.append(job.job_id)
        self._send(in_run(job, RUN))

    def queue(self, jobs: int, seconds: float) -> None:
        """Queue jobs, evenly in a time. What is late is queued as fast as it can be."""
        began = time.monotonic()
        for number in range(jobs):
            time.sleep(max(0.0, began + seconds * number / jobs - time.monotonic()))
            self.send(self._add_job())

    def _add_job(self) -> CatalogJob:
        collection = self._bench.collection
        while True:
            book = self._random.choice(self.books)
            images = [None, *(row["id"] for row in collection.images(book))]
            try:
                return collection.queue(book, self._random.choice(images))
            except (psycopg.errors.IntegrityError, psycopg.errors.DeadlockDetected):
                # The image has an active job, or a user has deleted it.
                continue


def storm(bench: StormBench, seconds: float, jobs: int) -> Storm:
    """Let users, the application and consumers run at the same time, until all jobs have ended.

    Args:
        bench: The application's side of the database and of the bucket.
        seconds: Time for which users change books.
        jobs: Number of jobs that the application queues. Users queue some too.
    """
    with consuming(bench) as send:
        application = Application(bench, send)
        url, books = bench.collection.url, application.books
        users = [
            User(url, books, seed, bench.upload_original, application.send)
            for seed in range(_USERS)
        ]
        looks = Looks(url)
        threads: tuple[Looks | User, ...] = (looks, *users)
        for each in threads:
            each.start()
        try:
            application.queue(jobs - _LAST_JOBS, seconds)
        finally:
            for each in threads:
                each.stop.set()
            for each in threads:
                each.join()
        application.queue(_LAST_JOBS, 0)
    took = sorted(second for user in users for second in user.seconds)
    waits = sorted(looks.waits.values())
    touched: dict[int, datetime] = {}
    for user in users:
        for book, at in user.touched.items():
            touched[book] = max(at, touched.get(book, datetime.min.replace(tzinfo=UTC)))
    return Storm(
        sent=application.sent,
        rolled_back=set[str]().union(*(user.rolled_back for user in users)),
        deleted=set[int]().union(*(user.deleted for user in users)),
        touched=touched,
        seconds=took,
        waits=[0.0] * (len(took) - len(waits)) + waits,
    )


def deliver_again(bench: StormBench, jobs: Sequence[CatalogJob]) -> None:
    """Deliver messages once more, to both consumers."""
    with consuming(bench) as send:
        for job in jobs:
            send(in_run(job, RUN))
