"""Jobs next to users who reorder, upload, delete and queue: no deadlock with us, nothing lost.

The users may deadlock each other. The server's log names the statements of both sides, and ours
carry our columns.
"""

from __future__ import annotations

import re
from contextlib import closing

import pytest

from tests.catalog.collection import Collection
from tests.catalog.storm import carry, p99_ms, storm
from tests.catalog.test_database import opened
from tests.support.postgres_server import PostgresServer

_USERS = (
    "UPDATE book_images SET display_order = $1, is_primary = $2",
    "DELETE FROM book_images WHERE id = $1",
    "INSERT INTO book_images (book_id, s3_key, display_order, is_primary) SELECT",
    "INSERT INTO image_processing_jobs (book_id, source_image_id) VALUES",
)
"""Beginnings of the statements that only the users send."""


def check_storm(url: str, collection: Collection, postgres: PostgresServer, seconds: float) -> None:
    alone = storm(collection, seconds / 2, consumers=0)
    collection.execute("DELETE FROM books")
    before = len(postgres.log())
    found = storm(collection, seconds)
    deadlocks = postgres.log()[before:].split("ERROR:  deadlock detected")[1:]
    # The log names the statements of both sides before its hint.
    sides = [part.partition("HINT:")[0] for part in deadlocks]
    statements = [each for side in sides for each in re.findall(r"Process \d+: (.*)", side)]
    assert len(statements) >= 2 * len(deadlocks)
    assert [each for each in statements if not each.startswith(_USERS)] == []
    states = collection.rows("SELECT status, count(*) FROM image_processing_jobs GROUP BY status")
    by_state = {row["status"]: row["count"] for row in states}
    # What stays taken has lost its image, which a consumer then writes as a failure.
    assert by_state.keys() <= {"completed", "processing"}, by_state
    assert by_state.get("processing", 0) < sum(by_state.values()) / 5
    twice = "SELECT s3_key FROM book_images GROUP BY s3_key HAVING count(*) > 1"
    assert collection.rows(twice) == []
    # Once the users are gone, one job more puts each book in order.
    with closing(opened(url)) as database:
        for book in found.books:
            carry(database, collection.queue(book, None))
            assert collection.order(book)
    print(
        f"{sum(by_state.values())} jobs, {len(found.seconds)} requests of users,"
        f" {len(deadlocks)} deadlocks of theirs; p99 of a request {p99_ms(found.seconds):.0f} ms,"
        f" without us {p99_ms(alone.seconds):.0f} ms; p99 of its wait for us"
        f" {p99_ms(found.waits):.0f} ms, the longest {found.waits[-1] * 1000:.0f} ms"
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
