"""Jobs next to users who reorder, upload, delete and queue: no deadlock with us, nothing lost.

The users' transactions are the application's as docs/catalog.md describes them, and may deadlock
each other. The server's log names the statements of both sides, and ours carry our columns.
"""

from __future__ import annotations

import queue
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial

import psycopg
import pytest

from ingest.catalog import rows
from ingest.catalog.database import Database
from ingest.catalog.finish import CutoutRow, finish
from ingest.catalog.rows import Claimed, Missing, Superseded
from serve_app.contracts.job import CatalogJob
from serve_app.errors import SourceDeleted
from tests.catalog.collection import Collection, photographs
from tests.catalog.test_database import opened
from tests.support.postgres_server import PostgresServer

BOOKS = 20
_LOOKS = 100
_USERS = (
    "UPDATE book_images SET display_order = $1, is_primary = $2",
    "DELETE FROM book_images WHERE id = $1",
    "INSERT INTO book_images (book_id, s3_key, display_order, is_primary) SELECT",
    "INSERT INTO image_processing_jobs (book_id, source_image_id) VALUES",
)
"""Beginnings of the statements that only the users send."""


class User(threading.Thread):
    """A user who changes books until an event is set, and notes how long each request took."""

    def __init__(
        self,
        url: str,
        books: list[int],
        seed: int,
        stop: threading.Event,
        messages: queue.Queue[CatalogJob],
    ) -> None:
        super().__init__()
        self._messages = messages
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
        send(self._messages, CatalogJob(job_id=str(row[0]), book_id=book, image_id=image))


class Looks(threading.Thread):
    """Looks at what the users' requests wait for, until an event is set."""

    _QUERY = (
        "SELECT coalesce(bool_or(o.application_name = 'foreedge'), false), count(o.pid) > 0"
        " FROM pg_stat_activity a LEFT JOIN LATERAL unnest(pg_blocking_pids(a.pid)) b ON true"
        " LEFT JOIN pg_stat_activity o ON o.pid = b WHERE a.datname = current_database()"
        " AND a.application_name = 'user' AND a.state = 'active' GROUP BY a.pid"
    )

    def __init__(self, url: str, stop: threading.Event) -> None:
        super().__init__()
        self._url, self._stop_event = url, stop
        self.seen: Counter[str] = Counter()
        """Number of active requests that were seen, by whom they wait for."""

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stop_event.wait(0.01):
                for ours, blocked in connection.execute(self._QUERY.encode()):
                    self.seen["ours" if ours else "each other" if blocked else "no lock"] += 1

    def share(self, whom: str) -> float:
        """Return the share of requests that waited for somebody."""
        return self.seen[whom] / max(1, self.seen.total())


def p99_ms(users: Sequence[User]) -> float:
    """Return the time in milliseconds that 99 % of the requests stay below."""
    waits = sorted(second for user in users for second in user.seconds)
    return waits[int(len(waits) * 0.99)] * 1000


def send(messages: queue.Queue[CatalogJob], job: CatalogJob) -> None:
    """Send the message of a job, which is delivered twice."""
    messages.put(job)
    messages.put(job)


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


def storm(
    databases: Sequence[Database], collection: Collection, seconds: float
) -> tuple[list[User], list[int], Looks]:
    """Let users and consumers run at the same time, then let the consumers end what is queued.

    Each job is delivered twice, the second time while the first is often worked on.
    """
    books = [collection.add_book(*photographs(random.randint(1, 12)))[0] for _ in range(BOOKS)]
    messages: queue.Queue[CatalogJob] = queue.Queue()
    stop = threading.Event()
    users = [User(collection.url, books, seed, stop, messages) for seed in range(3)]
    for book in books * 5:
        send(messages, collection.queue(book, None))

    def consume(database: Database) -> None:
        while not (stop.is_set() and messages.empty() and not any(u.is_alive() for u in users)):
            with suppress(queue.Empty):
                carry(database, messages.get(timeout=0.05))

    looks = Looks(collection.url, stop)
    for each in (looks, *users):
        each.start()
    with ThreadPoolExecutor() as threads:
        calls = [threads.submit(consume, database) for database in databases for _ in range(2)]
        stop.wait(seconds)
        stop.set()
        for user in users:
            user.join()
        for call in calls:
            call.result()
    looks.join()
    return users, books, looks


def check_storm(url: str, collection: Collection, postgres: PostgresServer, seconds: float) -> None:
    alone, _, _ = storm([], collection, seconds / 2)
    collection.execute("DELETE FROM books")
    before = len(postgres.log())
    with closing(opened(url)) as one, closing(opened(url)) as other:
        users, books, looks = storm([one, other], collection, seconds)
        deadlocks = postgres.log()[before:].split("ERROR:  deadlock detected")[1:]
        # The log names the statements of both sides before its hint.
        sides = [part.partition("HINT:")[0] for part in deadlocks]
        statements = [each for side in sides for each in re.findall(r"Process \d+: (.*)", side)]
        assert len(statements) >= 2 * len(deadlocks)
        assert [each for each in statements if not each.startswith(_USERS)] == []
        states = collection.rows(
            "SELECT status, count(*) FROM image_processing_jobs GROUP BY status"
        )
        by_state = {row["status"]: row["count"] for row in states}
        # What stays taken has lost its image, which a consumer then writes as a failure.
        assert by_state.keys() <= {"completed", "processing"}, by_state
        assert by_state.get("processing", 0) < sum(by_state.values()) / 5
        twice = "SELECT s3_key FROM book_images GROUP BY s3_key HAVING count(*) > 1"
        assert collection.rows(twice) == []
        # Once the users are gone, one job more puts each book in order.
        for book in books:
            carry(one, collection.queue(book, None))
            assert collection.order(book)
    print(
        f"{sum(by_state.values())} jobs, {sum(len(user.seconds) for user in users)} requests of"
        f" users, {len(deadlocks)} deadlocks of theirs; p99 of a request {p99_ms(users):.0f} ms,"
        f" without us {p99_ms(alone):.0f} ms; of the requests that were seen,"
        f" {looks.share('ours'):.1%} waited for us, {looks.share('each other'):.1%} for each other"
    )


def test_a_storm_of_users_meets_no_deadlock_of_ours(
    url: str, collection: Collection, postgres: PostgresServer
) -> None:
    check_storm(url, collection, postgres, seconds=2)


@pytest.mark.slow
def test_a_minute_of_storm_meets_no_deadlock_of_ours(
    url: str, collection: Collection, postgres: PostgresServer
) -> None:
    check_storm(url, collection, postgres, seconds=60)
