"""Users of the application who reorder, upload, delete and queue, and a look at their waiting.

The users' transactions are the application's as docs/catalog.md describes them. Who waits for whom
is looked up in the server every few milliseconds.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg

from serve_app.contracts.job import CatalogJob

_ACTIONS_A_BOOK = 200
_FIRST_BOOK = 5
"""The fifth action of a user deletes a book, and then one in two hundred."""
_ACTIONS_A_JOB = 10
_LONGEST_PAUSE_S = 0.02
_MOST_IMAGES = 12
_LOOK_S = 0.005

Action = Callable[[psycopg.Connection, int], None]


class User(threading.Thread):
    """A user who changes books until an event is set, and notes what happened."""

    def __init__(
        self,
        url: str,
        books: list[int],
        seed: int,
        upload: Callable[[str], object],
        send: Callable[[CatalogJob], object],
    ) -> None:
        """Start nothing yet.

        Args:
            url: URL of the database.
            books: Ids of the books, which users share. One that is deleted is replaced.
            seed: Number that chooses what the user does.
            upload: Function that stores an image under a key of the tables.
            send: Function that sends the message of a job.
        """
        super().__init__()
        self._url, self._books = url, books
        self._upload_image, self._send = upload, send
        self._random = random.Random(seed)
        self._queued: list[CatalogJob] = []
        self.stop = threading.Event()
        """Set to end the thread."""
        self.seconds: list[float] = []
        """Seconds that each request took which succeeded."""
        self.touched: dict[int, datetime] = {}
        """Time after the last change of the images of each book."""
        self.deleted: set[int] = set()
        """Ids of the books that this user has deleted."""
        self.rolled_back: set[str] = set()
        """Ids of the jobs whose messages were sent, and whose rows were not committed."""

    def run(self) -> None:
        actions = [self._reorder] * 4 + [self._upload] * 2 + [self._delete_image] * 2
        with psycopg.connect(self._url, application_name="user") as connection:
            number = 0
            while not self.stop.is_set():
                number += 1
                book = self._random.choice(self._books)
                if number % _ACTIONS_A_BOOK == _FIRST_BOOK:
                    self._delete_queued(connection, book)
                elif number % _ACTIONS_A_JOB == 0:
                    self._request(connection, self._queue, book)
                elif self._request(connection, self._random.choice(actions), book):
                    self.touched[book] = datetime.now(UTC)
                time.sleep(self._random.uniform(0, _LONGEST_PAUSE_S))

    def _request(self, connection: psycopg.Connection, action: Action, book: int) -> bool:
        """Return whether a request of the user was committed."""
        self._queued.clear()
        began = time.monotonic()
        try:
            action(connection, book)
            connection.commit()
        except (psycopg.errors.DeadlockDetected, psycopg.errors.IntegrityError):
            # What users do to each other is not what is measured.
            connection.rollback()
            self.rolled_back.update(job.job_id for job in self._queued)
            return False
        self.seconds.append(time.monotonic() - began)
        return True

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
        key = self._new_image(book)
        connection.execute(
            "INSERT INTO book_images (book_id, s3_key, display_order, is_primary)"
            " SELECT %s, %s, count(*), false FROM book_images WHERE book_id = %s",
            [book, key, book],
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
        job = CatalogJob(job_id=str(row[0]), book_id=book, image_id=image)
        self._queued.append(job)
        # The application sends the message before it commits the row.
        self._send(job)

    def _delete_queued(self, connection: psycopg.Connection, book: int) -> None:
        """Queue a job, delete its book, and have the message delivered once more, as SQS may do."""
        self._request(connection, self._queue, book)
        queued = list(self._queued)
        if self._request(connection, self._replace_book, book):
            for job in queued:
                self._send(job)

    def _replace_book(self, connection: psycopg.Connection, book: int) -> None:
        """Delete a book, with its images and jobs, and add another one."""
        connection.execute("DELETE FROM books WHERE id = %s", [book])
        [row] = connection.execute("INSERT INTO books (title) VALUES ('new') RETURNING id")
        for position in range(self._random.randint(1, _MOST_IMAGES)):
            connection.execute(
                "INSERT INTO book_images (book_id, s3_key, display_order, is_primary)"
                " VALUES (%s, %s, %s, %s)",
                [row[0], self._new_image(row[0]), position, position == 0],
            )
        connection.commit()
        self.deleted.add(book)
        # Another user may have deleted it at the same time.
        with suppress(ValueError):
            self._books[self._books.index(book)] = row[0]

    def _new_image(self, book: int) -> str:
        key = f"{book}_{uuid.uuid4().hex}.jpg"
        self._upload_image(f"books/{key}")
        return key


class Looks(threading.Thread):
    """Looks at what the users' requests wait for, until an event is set."""

    _QUERY = (
        "SELECT pid, application_name, xact_start, pg_blocking_pids(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND xact_start IS NOT NULL"
    )

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.stop = threading.Event()
        """Set to end the thread."""
        self.waits: dict[tuple[int, Any], float] = {}
        """Seconds for which a request waited for a consumer, by session and begin."""

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            looked_at = time.monotonic()
            while not self.stop.wait(_LOOK_S):
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
