"""The locks of the transactions: what they wait for, and what they make others wait for."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import psycopg
import pytest
from sqlalchemy import Connection, event

from ingest.catalog.database import Database
from ingest.catalog.finish import Entered, finish
from ingest.catalog.rows import Missing
from ingest.catalog.try_again import TryAgain
from serve_app.contracts.job import CatalogJob
from tests.catalog.collection import Collection, Image, photographs
from tests.catalog.test_database import opened
from tests.catalog.test_rows import cutout, end, take
from tests.support.postgres_server import PostgresServer

LOCKS = {
    "the book": "UPDATE books SET id = id WHERE id = %(book)s",
    "the book for deletion": "DELETE FROM books WHERE id = %(book)s",
    "an image": "UPDATE book_images SET caption = '' WHERE id = %(image)s",
    "the job": "UPDATE image_processing_jobs SET status = status WHERE book_id = %(book)s",
}


@pytest.mark.parametrize("what", LOCKS)
def test_finish_never_waits_for_a_row(
    what: str, database: Database, collection: Collection, url: str
) -> None:
    book, [source, other] = collection.add_book(*photographs(2))
    job = collection.queue(book, source)
    take(database, job)
    query = LOCKS[what].replace("id = id", "title = ''") if what == "the book" else LOCKS[what]
    finishing = partial(finish, job=job, cutout=cutout(job, source))
    with psycopg.connect(url) as user:
        user.execute(query.encode(), {"book": book, "image": other})
        if what == "the book":
            # The title of a book is nothing to us, so its editor is not waited for.
            assert isinstance(database.run_once(finishing), Entered)
        else:
            with pytest.raises(TryAgain, match="another transaction holds the rows") as raised:
                database.run_once(finishing)
            assert raised.value.contended
        user.rollback()
    assert isinstance(database.run(finishing), Entered)


def test_a_claim_and_an_upload_that_queues_a_job_do_not_hinder_each_other(
    database: Database, collection: Collection, url: str
) -> None:
    # The application holds the new rows while it sends the message to SQS.
    book, [source, other] = collection.add_book(*photographs(2))
    job = collection.queue(book, source)
    with psycopg.connect(url) as api:
        api.execute(
            "INSERT INTO image_processing_jobs (book_id, source_image_id) VALUES (%s, %s)",
            [book, other],
        )
        take(database, job)
        assert isinstance(
            database.run_once(partial(finish, job=job, cutout=cutout(job, source))), Entered
        )
        api.commit()


def test_a_transaction_waits_for_others_and_then_succeeds(
    database: Database, collection: Collection, url: str
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    take(database, job)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with psycopg.connect(url) as user:
            user.execute("UPDATE book_images SET caption = ''")
            held.set()
            done.wait(0.3)

    user = threading.Thread(target=hold)
    user.start()
    held.wait()
    assert isinstance(end(database, job, cutout(job, source)), Entered)
    user.join()


def test_an_image_that_appears_between_the_lock_and_the_reading_begins_the_transaction_again(
    database: Database, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    take(database, job)
    added: list[int] = []

    def upload(_: object, __: object, statement: str, *rest: object) -> None:
        # It commits after the statement that locks has taken its snapshot.
        if "FOR NO KEY UPDATE" in statement and "book_images" in statement and not added:
            added.append(collection.add_image(book, Image("late.jpg"), 1))

    def finish_with_upload(connection: Connection) -> Entered | Missing:
        event.listen(connection, "after_cursor_execute", upload)
        return finish(connection, job, cutout(job, source))

    assert isinstance(database.run(finish_with_upload), Entered)
    order = collection.order(book)
    assert (order[1:], len(order)) == ([added[0], source], 3)


PAUSE = """
CREATE ROLE {role} LOGIN PASSWORD 'w';
GRANT ALL ON ALL TABLES IN SCHEMA public TO {role};
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role};
CREATE FUNCTION pause() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN
    WHILE NOT EXISTS (SELECT FROM image_processing_jobs WHERE status = 'completed') LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN true;
END $$;
ALTER TABLE books ENABLE ROW LEVEL SECURITY;
CREATE POLICY pause ON books TO {role} USING (pause());
"""
"""Makes a role whose statements wait, before they lock a book, until a job is completed. What the
function reads is newer than what the statement reads that has called it."""


def test_a_cut_out_that_another_delivery_has_entered_since_the_snapshot_is_found(
    database: Database, collection: Collection, postgres: PostgresServer, url: str
) -> None:
    book, [source, other] = collection.add_book(*photographs(2))
    job = collection.queue(book, source)
    take(database, job)
    name = url.rpartition("/")[2]
    role = f"late_{name}"
    collection.execute(PAUSE.replace("{role}", role))
    waits = "SELECT 1 FROM pg_stat_activity WHERE usename = %s AND wait_event = 'PgSleep'"
    made = cutout(job, source)
    with closing(opened(postgres.url(name, role, "w"))) as late, ThreadPoolExecutor(1) as thread:
        ends = thread.submit(late.run_once, partial(finish, job=job, cutout=made))
        while not collection.rows(waits, role):
            assert not ends.done(), ends.result()
        before = end(database, job, made), collection.images(book), collection.job(job)
        # Its statement has the job as it is now, and the images as they were then.
        assert ends.result() == before[0] == Entered(made.s3_key)
    assert (collection.images(book), collection.job(job)) == before[1:]
    assert collection.order(book)[1:] == [other, source]


def test_two_deliveries_at_once_make_one_row(database: Database, collection: Collection) -> None:
    book, [source, *_] = collection.add_book(*photographs(5))
    job = collection.queue(book, source)
    other = collection.queue(book, None)
    barrier = threading.Barrier(4)
    made = cutout(job, source)

    def deliver(which: CatalogJob) -> None:
        take(database, which)
        barrier.wait()
        end(database, which, made)

    threads = [threading.Thread(target=deliver, args=[which]) for which in (job, job, other, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(collection.order(book)) == 6
    assert {collection.job(each)["status"] for each in (job, other)} == {"completed"}


def test_a_job_is_few_round_trips(
    collection: Collection, postgres: PostgresServer, url: str
) -> None:
    book, [source, *_] = collection.add_book(*photographs(40))
    warm, job = collection.queue(book, None), collection.queue(book, source)
    name = url.rpartition("/")[2]
    collection.execute(f"ALTER DATABASE {name} SET log_statement = 'all'")
    with closing(opened(url)) as database:
        # The first transaction of a connection asks for the server's version, and more.
        take(database, warm)
        before = len(postgres.log())
        take(database, job)
        end(database, job, cutout(job, source))
    # What the server has heard of counts, whoever sent it.
    heard = re.findall(r"LOG:  (?:statement|execute [^:]*): (\w+)", postgres.log()[before:])
    assert heard == ["BEGIN", "WITH", "COMMIT", "BEGIN", "WITH", "WITH", "COMMIT"]
