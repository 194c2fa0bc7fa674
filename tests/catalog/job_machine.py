"""Everything that can happen to jobs, in any order: the states of a Hypothesis test.

The rows are in a real Postgres, and the transactions and the order of row, ledger and deletion are
those of ``CatalogProcess`` and ``CatalogRecorder``. The queue, the application and the worker that
takes over after a roll-back are models.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from ingest.catalog import rows
from ingest.catalog.catalog import Catalog
from ingest.catalog.database import Database
from ingest.catalog.finish import CutoutRow, finish
from ingest.catalog.login import Login
from ingest.catalog.rows import Claimed
from ingest.catalog.sweep import sweep
from ingest.catalog.unsent import Wanted
from ingest.sqs.queue_client import QueueClient
from serve_app.config import AwsConfig, CatalogConfig
from serve_app.contracts.job import CatalogJob, Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import DatabaseUnavailable, ForeedgeError, InternalError, NoSubject
from tests.catalog.collection import Collection, photographs
from tests.catalog.old_worker import Died, OldError, OldSweep, OldWorker
from tests.catalog.quick_bench import FileStore
from tests.catalog.stand_in_pipeline import StandInPipeline, jpeg

MAX_RECEIVES = 3
BUCKET = "collection"
Fate = Literal["done", "passing", "final", "stopped", "killed at work", "killed after the rows"]
FATES: tuple[Fate, ...] = (
    "done", "done", "passing", "final", "stopped", "killed at work", "killed after the rows",
)  # fmt: skip


@dataclass
class Message:
    """A message of the queue."""

    job: CatalogJob
    receives: int = 0


class LedgerOfTest:
    """A ledger that keeps the outcomes in memory."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}

    async def record(self, outcome: Outcome) -> None:
        self.outcomes[outcome.job_id] = outcome

    async def close(self) -> None:
        return


class Sqs:
    """A client of SQS that takes every message."""

    def __init__(self, take: Callable[[str], object]) -> None:
        self._take = take

    def send_message_batch(self, **request: Any) -> Any:
        for entry in request["Entries"]:
            self._take(entry["MessageBody"])
        return {"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]]}


class World:
    """What one test's examples share: the database, the bucket and the event loop."""

    def __init__(self, url: str, folder: Path) -> None:
        self.collection = Collection(url)
        (folder / BUCKET).mkdir()
        self.store = FileStore(folder)
        self.config = CatalogConfig.model_validate(
            {"database_url": url, "images_bucket": BUCKET, "row_wait_s": 0}
        )
        self.database = Database(Login(self.config, AwsConfig()))
        self.loop = asyncio.Runner()
        self.catalog = self.loop.run(self._open())

    async def _open(self) -> Catalog:
        return Catalog(self.config, AwsConfig(), self.store, 600)

    def close(self) -> None:
        self.catalog.close()
        self.loop.close()
        self.database.close()
        self.collection.close()


class JobMachine(RuleBasedStateMachine):
    """Books, users, jobs, messages, and the worker that serves them: ours or the old one."""

    books = Bundle("books")
    old_worker_may_die = False

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.collection = world.collection
        self.collection.execute("TRUNCATE books CASCADE")
        self.messages: list[Message] = []
        self.dead: set[str] = set()
        self.ledger = LedgerOfTest()
        self.ours = True

    # the application and its users

    @initialize(target=books, counts=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def begin(self, counts: list[int]) -> Any:
        return multiple(*(self._add_book(count) for count in counts))

    @rule(target=books, count=st.integers(1, 3))
    def add_book(self, count: int) -> int:
        return self._add_book(count)

    def _add_book(self, count: int) -> int:
        book, _ = self.collection.add_book(*photographs(count))
        for row in self.collection.images(book):
            for prefix in ("", "thumb_"):
                key = f"books/{prefix}{row['s3_key']}"
                self.world.store.put(BUCKET, key, jpeg(), "image/jpeg")
        return book

    @rule(book=books, pick=st.integers(0, 3), sent=st.sampled_from([True, True, False]))
    def queue(self, book: int, pick: int, sent: bool) -> None:
        """Queue a job as the application does, which skips an image that has an active one."""
        images = self.collection.images(book)
        if not images:
            return
        image = images[pick % len(images)]["id"]
        active = (
            "SELECT 1 FROM image_processing_jobs WHERE source_image_id = %s"
            " AND status IN ('pending', 'processing')"
        )
        if self.collection.rows(active, image):
            return
        job = self.collection.queue(book, image, "pending" if sent else "queue_failed")
        if sent:
            self.messages.append(Message(job))

    @rule(book=books)
    def queue_and_roll_back(self, book: int) -> None:
        """Send a message whose row is never committed."""
        job = CatalogJob(job_id=str(uuid.uuid4()), book_id=book, image_id=None)
        self.messages.append(Message(job))

    @rule(book=books, pick=st.integers(0, 3))
    def delete_image(self, book: int, pick: int) -> None:
        images = self.collection.images(book)
        if images:
            image = images[pick % len(images)]["id"]
            self.collection.execute("DELETE FROM book_images WHERE id = %s", image)

    @rule(book=books)
    def delete_book(self, book: int) -> None:
        self.collection.execute("DELETE FROM books WHERE id = %s", book)

    @rule(fails=st.booleans())
    def application_sweeps(self, fails: bool) -> None:
        def send(body: str) -> None:
            if fails:
                raise OldError("the queue is unavailable")
            self.messages.append(Message(CatalogJob.model_validate_json(body)))

        try:
            OldSweep(self.collection.url, send).run()
        except psycopg.errors.UniqueViolation:
            # Its known fault: an image with an active job ends the sweep.
            return

    @rule(lost=st.booleans())
    def we_sweep(self, lost: bool) -> None:
        """Send what needs a message, and in some sweeps also what waits or was taken."""
        sqs = Sqs(lambda body: self.messages.append(Message(CatalogJob.model_validate_json(body))))
        wanted = Wanted(lost_after_s=0, stale_after_s=0, lost=lost)
        swept = sweep(self.world.database, QueueClient(cast("Any", sqs), "https://sqs/q"), wanted)
        assert swept.error is None

    # the queue and the workers

    @precondition(lambda self: self.messages)
    @rule(pick=st.integers(0, 9))
    def deliver_again_later(self, pick: int) -> None:
        message = self.messages[pick % len(self.messages)]
        self.messages.append(Message(message.job, message.receives))

    @precondition(lambda self: self.messages)
    @rule(pick=st.integers(0, 9), fate=st.sampled_from(FATES))
    def deliver(self, pick: int, fate: Fate) -> None:
        message = self.messages.pop(pick % len(self.messages))
        message.receives += 1
        if not (self._deliver_to_ours if self.ours else self._deliver_to_old)(message, fate):
            if message.receives < MAX_RECEIVES:
                self.messages.append(message)
            else:
                self.dead.add(message.job.job_id)

    @precondition(lambda self: self.ours)
    @rule()
    def roll_back(self) -> None:
        """Stop all our consumers, release, and let the old worker serve the queue."""
        self.world.database.run(partial(rows.release, older_than_s=0))
        self.ours = False

    @precondition(lambda self: not self.ours)
    @rule()
    def roll_forward(self) -> None:
        self.ours = True

    def _deliver_to_old(self, message: Message, fate: Fate) -> bool:
        """Return whether the old worker acknowledges a message."""

        def cut(_: str) -> None:
            if fate in ("passing", "final"):
                raise OldError("no subject")
            if fate.startswith("killed") and self.old_worker_may_die:
                raise Died

        try:
            worker = OldWorker(self.collection.url, self.world.store, BUCKET, cut)
            return worker.deliver(message.job)
        except Died:
            return False
        except psycopg.errors.UniqueViolation:
            # It writes "processing" over a failed job whose image has a newer one, which the
            # partial index refuses. Its Lambda ends with the error, and the message comes again.
            return False

    def _deliver_to_ours(self, message: Message, fate: Fate) -> bool:
        """Return whether our consumer ends a message: row, ledger, deletion, in this order."""
        if fate.startswith("killed"):
            self._kill(message.job, fate)
            # A receive that a killed worker used is charged, and is not its last one here.
            message.receives = min(message.receives, MAX_RECEIVES - 1)
            return False
        return self.world.loop.run(self._serve(message, fate))

    async def _serve(self, message: Message, fate: Fate) -> bool:
        pipeline = StandInPipeline(self.world.store)

        async def process(job: Job) -> Outcome:
            if fate == "stopped":
                raise asyncio.CancelledError
            if fate == "done":
                return await pipeline.process(job)
            error = InternalError("a defect") if fate == "passing" else NoSubject("no subject")
            return Outcome.failed(job, error)

        try:
            outcome = await self.world.catalog.process(process).run(message.job)
        except asyncio.CancelledError:
            message.receives = min(message.receives, MAX_RECEIVES - 1)
            return False
        if outcome.refused_by is not None:
            raise DatabaseUnavailable(f"{outcome.message}")
        passing = outcome.code == InternalError.code
        if passing and message.receives < MAX_RECEIVES:
            return False
        await self.world.catalog.recorder(self.ledger).record(outcome)
        if outcome.status == "failed":
            self.dead.add(message.job.job_id)
        return True

    def _kill(self, job: CatalogJob, fate: Fate) -> None:
        """Do what a worker does until it is killed."""
        database = self.world.database
        try:
            found = database.run(partial(rows.claim, job=job))
        except (ForeedgeError, rows.Superseded):
            return
        if fate == "killed after the rows" and isinstance(found, Claimed):
            name = f"{job.book_id}_processed_{found.source.id}_f.png"
            cutout = CutoutRow(found.source.id, name, None, "u2net")
            database.run(partial(finish, job=job, cutout=cutout))

    # what always holds

    @invariant()
    def no_job_is_lost(self) -> None:
        """Check that a job that is not done has a message, or a state that says why not."""
        sent = {message.job.job_id for message in self.messages}
        for row in self.collection.rows("SELECT * FROM image_processing_jobs"):
            job_id, state = str(row["id"]), row["status"]
            if state in ("pending", "processing"):
                assert job_id in sent | self.dead, f"{state} for ever: {row}"
            if state == "failed":
                assert row["failure_reason"], row
                swept = row["failure_reason"].startswith(("superseded: ", "abandoned: "))
                assert swept or job_id in self.dead | sent, f"failed unseen: {row}"

    @invariant()
    def an_image_has_one_cutout_of_ours(self) -> None:
        twice = (
            "SELECT split_part(s3_key, '_', 3) FROM book_images WHERE s3_key ~ '_processed_[0-9]+_'"
            " GROUP BY book_id, 1 HAVING count(*) > 1"
        )
        assert self.collection.rows(twice) == []

    def teardown(self) -> None:
        """Let our sweep and our consumer end all that is left: each job then says how it ended."""
        self.ours = True
        for _ in range(2):
            while self.messages:
                self.deliver(0, "done")
            self.we_sweep(lost=False)
        while self.messages:
            self.deliver(0, "done")
        for row in self.collection.rows("SELECT * FROM image_processing_jobs"):
            ended = {"completed", "failed", "permanently_failed"}
            dead = str(row["id"]) in self.dead
            assert row["status"] in ended or dead, f"{row['status']} for ever: {row}"


class DyingOldWorker(JobMachine):
    """The same with the old worker, which may die: it then acknowledges what it finds taken."""

    old_worker_may_die = True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.ours = False
