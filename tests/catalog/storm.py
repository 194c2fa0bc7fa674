"""Users who reorder, upload, delete and queue, next to consumers in processes of their own.

The users' transactions are the application's as docs/catalog.md describes them. Who waits for whom
is looked up in the server every few milliseconds.
"""

from __future__ import annotations

import multiprocessing
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg

from ingest.catalog import rows
from ingest.catalog.database import Database
from ingest.catalog.finish import CutoutRow, finish
from ingest.catalog.rows import Claimed, Missing, Superseded
from serve_app.contracts.job import CatalogJob
from serve_app.errors import SourceDeleted
from tests.catalog.collection import Collection, photographs
from tests.catalog.test_database import opened

_BOOKS = 20
_USERS = 3
_CONSUMERS = 2
_JOBS_AT_A_TIME = 2
_LOOKS = 100
_LOOK_S = 0.005
_START_S = 60


class User(threading.Thread):
    """A user who changes books until an event is set, and notes how long each request took."""

    def __init__(
        self,
        url: str,
        books: list[int],
        seed: int,
        stop: threading.Event,
        send: Callable[[CatalogJob], None],
    ) -> None:
        super().__init__()
        self._send = send
        self._url, self._books, self._stop_event = url, books, stop
        self._random = random.Random(seed)
        self.seconds: list[float] = []

    def run(self) -> None:
        actions: list[Callable[[psycopg.Connection, int], None]] = [
            self._reorder, self._reorder, self._upload, self._delete_image, self._queue,
        ]  # fmt: skip
        with psycopg.connect(self._url, application_name="user") as connection:
            while not self._stop_event.is_set():
                book = self._random.choice(self._books)
                began = time.monotonic()
                try:
                    self._random.choice(actions)(connection, book)
                    connection.commit()
                except (psycopg.errors.DeadlockDetected, psycopg.errors.IntegrityError):
                    # What users do to each other is not what is measured.
                    connection.rollback()
                else:
                    self.seconds.append(time.monotonic() - began)
                time.sleep(self._random.uniform(0, 0.01))

    def _ids(self, connection: psycopg.Connection, book: int) -> list[int]:
        query = "SELECT id FROM book_images WHERE book_id = %s"
        ids = [row[0] for row in connection.execute(query, [book])]
        self._random.shuffle(ids)
        return ids

    def _reorder(self, connection: psycopg.Connection, book: int) -> None:
        # One UPDATE for each image, in the order of the request, as an ORM sends them.
        for position, image in enumerate(self._ids(connection, book)):
            connection.execute(
                "UPDATE book_images SET display_order = %s, is_primary = %s WHERE id = %s",
                [position, position == 0, image],
            )

    def _upload(self, connection: psycopg.Connection, book: int) -> None:
        connection.execute(
            "INSERT INTO book_images (book_id, s3_key, display_order, is_primary)"
            " SELECT %s, gen_random_uuid()::text, count(*), false FROM book_images"
            " WHERE book_id = %s",
            [book, book],
        )

    def _delete_image(self, connection: psycopg.Connection, book: int) -> None:
        ids = self._ids(connection, book)
        if len(ids) > 3:
            connection.execute("DELETE FROM book_images WHERE id = %s", [ids[0]])

    def _queue(self, connection: psycopg.Connection, book: int) -> None:
        image = next(iter(self._ids(connection, book)), None)
        [row] = connection.execute(
            "INSERT INTO image_processing_jobs (book_id, source_image_id) VALUES (%s, %s)"
            " RETURNING id",
            [book, image],
        )
        self._send(CatalogJob(job_id=str(row[0]), book_id=book, image_id=image))


class Looks(threading.Thread):
    """Looks at what the users' requests wait for, until an event is set."""

    _QUERY = (
        "SELECT pid, application_name, xact_start, pg_blocking_pids(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND xact_start IS NOT NULL"
    )

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__()
        self._url, self._stop_event = url, stop
        self.waits: dict[tuple[int, Any], float] = {}
        """Seconds for which a request waited for a consumer, by session and begin."""

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            looked_at = time.monotonic()
            while not self._stop_event.wait(_LOOK_S):
                found = {row[0]: row[1:] for row in connection.execute(self._QUERY.encode())}
                since_s, looked_at = time.monotonic() - looked_at, time.monotonic()
                for pid, (name, began, _) in found.items():
                    if name == "user" and self._waits_for_us(pid, found):
                        self.waits[pid, began] = self.waits.get((pid, began), 0) + since_s

    @staticmethod
    def _waits_for_us(pid: int, found: dict[int, Any]) -> bool:
        """Return whether a session waits for a consumer, or for a user who does."""
        seen, ahead = {pid}, list(found[pid][2])
        while ahead:
            blocker = ahead.pop()
            if blocker in seen or blocker not in found:
                continue
            if found[blocker][0] == "foreedge":
                return True
            seen.add(blocker)
            ahead += found[blocker][2]
        return False


@dataclass(frozen=True)
class Storm:
    """What a storm has shown."""

    books: list[int]
    """Ids of the books that users and consumers have changed."""
    seconds: list[float]
    """Seconds that each request of a user took, in order."""
    waits: list[float]
    """Seconds for which each of them waited for a consumer, in order."""


def p99_ms(seconds: Sequence[float]) -> float:
    """Return the time in milliseconds that 99 % of ordered times stay below."""
    return seconds[int(len(seconds) * 0.99)] * 1000


def carry(database: Database, job: CatalogJob) -> None:
    """Do a consumer's transactions for a job, without the image in between."""
    try:
        found = database.run(partial(rows.claim, job=job))
        for _ in range(_LOOKS):
            if not isinstance(found, Missing):
                break
            # The message comes before its row is committed, and the row may never come.
            time.sleep(0.02)
            found = database.run(partial(rows.claim, job=job))
        if isinstance(found, Claimed):
            key = f"{job.book_id}_processed_{found.source.id}_f.png"
            cutout = CutoutRow(found.source.id, key, None, "u2net")
            database.run(partial(finish, job=job, cutout=cutout))
    except (Superseded, SourceDeleted):
        return


def consume(url: str, messages: Any, ready: Any) -> None:
    """Carry jobs until a message is None. Runs in a process of its own."""

    def carry_on(database: Database) -> None:
        while (job := messages.get()) is not None:
            carry(database, job)

    with closing(opened(url)) as database, ThreadPoolExecutor(_JOBS_AT_A_TIME) as threads:
        database.run(lambda _: None)
        ready.release()
        for call in [threads.submit(carry_on, database) for _ in range(_JOBS_AT_A_TIME)]:
            call.result()


@contextmanager
def consuming(url: str, consumers: int) -> Iterator[Callable[[CatalogJob], None]]:
    """Run consumers, and let them end what was sent.

    Yields:
        A function that sends the message of a job, which is delivered twice, the second time while
        the first is often worked on.
    """
    spawning = multiprocessing.get_context("spawn")
    messages: Any = spawning.Queue() if consumers else queue.Queue()
    ready = spawning.Semaphore(0)
    processes = [
        spawning.Process(target=consume, args=(url, messages, ready), daemon=True)
        for _ in range(consumers)
    ]
    for process in processes:
        process.start()
    for _ in processes:
        assert ready.acquire(timeout=_START_S), "a consumer did not start"

    def send(job: CatalogJob) -> None:
        messages.put(job)
        messages.put(job)

    yield send
    for _ in range(consumers * _JOBS_AT_A_TIME):
        messages.put(None)
    for process in processes:
        process.join()
        assert process.exitcode == 0


def storm(collection: Collection, seconds: float, *, consumers: int = _CONSUMERS) -> Storm:
    """Let users and consumers run at the same time, then let the consumers end what is queued."""
    books = [collection.add_book(*photographs(random.randint(1, 12)))[0] for _ in range(_BOOKS)]
    stop = threading.Event()
    with consuming(collection.url, consumers) as send:
        for book in books * 5:
            send(collection.queue(book, None))
        users = [User(collection.url, books, seed, stop, send) for seed in range(_USERS)]
        looks = Looks(collection.url, stop)
        for each in (looks, *users):
            each.start()
        stop.wait(seconds)
        stop.set()
        for each in (looks, *users):
            each.join()
    took = sorted(second for user in users for second in user.seconds)
    waits = sorted(looks.waits.values())
    return Storm(books, took, [0.0] * (len(took) - len(waits)) + waits)
