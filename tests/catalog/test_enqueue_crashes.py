"""``foreedge catalog enqueue`` that is killed, and over tables with a million rows."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.catalog.database import Database
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection
from tests.catalog.commands import command, json_answer, settings_file
from tests.catalog.quick_bench import QuickBench
from tests.catalog.stand_in_pipeline import jpeg
from tests.catalog.sweeping import add_unqueued, received, swept
from tests.support.fault_effects import kill_caller
from tests.support.fault_proxy import Answer, Effect, Forward, Proxy, Request

SEND = "sqs:SendMessageBatch"
MAIN = (
    "import sys; from pathlib import Path; from ingest.cli.main import app\n"
    "app(standalone_mode=False)\n"
    "status = Path('/proc/self/status').read_text()\n"
    "print(status.partition('VmHWM:')[2].split()[0], file=sys.stderr)"
)
"""The command, which then prints the most memory that it had, in KiB. What ``getrusage`` says is
also that of the process that has started it."""


@pytest.fixture
def proxy(bench: Bench) -> Iterator[Proxy]:
    with Proxy(bench.aws.endpoint_url) as opened:
        yield opened


def enqueue(settings: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", MAIN, "catalog", "enqueue", "--config", settings, "--json", *words],
        check=False, timeout=600, capture_output=True, text=True,
    )  # fmt: skip


async def forwarded(request: Request, forward: Forward) -> Answer | None:
    return await forward(request)


def later(requests: int, effect: Effect) -> Effect:
    """Forward some requests, and then use an effect."""
    numbers = itertools.count()

    async def counted(request: Request, forward: Forward) -> Answer | None:
        if next(numbers) < requests:
            return await forward(request)
        return await effect(request, forward)

    return counted


class Kept:
    """Takes messages in place of moto, which needs longer for each than for the one before."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, request: Request, _: Forward) -> Answer:
        entries = request.content["Entries"]
        self.bodies += [json.loads(entry["MessageBody"]) for entry in entries]
        taken = {"Successful": [{"Id": entry["Id"]} for entry in entries], "Failed": []}
        return Answer(
            200, {"content-type": "application/x-amz-json-1.0"}, json.dumps(taken).encode()
        )

    def behind(self, effect: Effect) -> Effect:
        """Return an effect that forwards to this in place of the server."""

        async def kept(request: Request, forward: Forward) -> Answer | None:
            return await effect(request, lambda sent: self(sent, forward))

        return kept


def killed(settings: str, proxy: Proxy, action: str, name: str, effect: Effect) -> None:
    proxy.add(action, effect, name=name)
    answer = enqueue(settings, "--run-id", "r1", "--endpoint-url", proxy.endpoint_url)
    assert answer.returncode == -9, answer.stderr
    proxy.clear()


async def serve_all(bodies: list[dict[str, Any]], bench: QuickBench, jobs: int) -> None:
    """Let a consumer serve the messages of a run, from a queue that is faster than moto's."""
    assert len({body["job_id"] for body in bodies}) == jobs
    # No part of the list is sent more often than the run was begun.
    assert len(bodies) <= 4 * jobs
    bench.upload_original("books/shared.jpg")
    async with bench.consuming():
        for first in range(0, len(bodies), 1_000):
            for body in bodies[first : first + 1_000]:
                bench.send_body(json.dumps(body))
            await bench.drained()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [30, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_a_run_that_is_killed_three_times_gives_each_book_one_job(
    number: int, bench: Bench, quick_bench: QuickBench, proxy: Proxy, tmp_path: Path
) -> None:
    settings = settings_file(bench, tmp_path)
    collection = bench.collection
    books = add_unqueued(collection, number)
    bench.s3.put_object(Bucket=bench.bucket, Key="books/shared.jpg", Body=jpeg())
    some, kept = number // 20, Kept()
    queue = kept.behind if number > 1_000 else lambda effect: effect
    for action, name, effect in (
        # Between the rows and the first message, among the messages, and after the last one.
        (SEND, "*", queue(kill_caller())),
        (SEND, "*", queue(later(some, kill_caller(after=True)))),
        ("s3:PutObject", "*sent.json", later(1, kill_caller())),
    ):
        if action != SEND:
            proxy.add(SEND, queue(forwarded))
        killed(settings, proxy, action, name, effect)
    proxy.add(SEND, queue(forwarded))
    answer = enqueue(settings, "--run-id", "r1", "--endpoint-url", proxy.endpoint_url)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {"run_id": "r1", "books": number, "sent": True}
    answer = enqueue(settings, "--run-id", "r1")
    assert json.loads(answer.stdout) == {"run_id": "r1", "books": number, "sent": False}
    rows = collection.rows("SELECT * FROM image_processing_jobs ORDER BY book_id")
    assert [row["book_id"] for row in rows] == books
    assert {row["status"] for row in rows} == {"pending"}
    if number > 1_000:
        await serve_all(kept.bodies, quick_bench, len(rows))
    else:
        async with bench.consuming():
            await bench.drained()
        counts = json_answer("status", "r1", settings=settings)["counts"]
        # A second message of a job finds its result.
        assert counts["done"] + counts["skipped_existing"] == number
        assert counts["failed"] == counts["missing"] == 0
    rows = collection.rows("SELECT * FROM image_processing_jobs")
    assert {row["status"] for row in rows} == {"completed"}
    cutouts = collection.rows("SELECT * FROM book_images WHERE is_background_processed")
    assert sorted(row["book_id"] for row in cutouts) == books


def test_the_sweep_sends_what_a_killed_run_has_left(
    bench: Bench, database: Database, collection: Collection, proxy: Proxy, tmp_path: Path
) -> None:
    books = add_unqueued(collection, 12)
    killed(settings_file(bench, tmp_path), proxy, SEND, "*", kill_caller())
    rows = collection.rows("SELECT status FROM image_processing_jobs")
    assert {row["status"] for row in rows} == {"queue_failed"}
    assert swept(bench, database).ends == {"sent": len(books)}
    bodies = received(bench)
    assert sorted(body["book_id"] for body in bodies) == books
    assert {body["run_id"] for body in bodies} == {"r1"}


def test_a_rate_keeps_few_rows_unsent(
    bench: Bench, collection: Collection, proxy: Proxy, tmp_path: Path
) -> None:
    """Rows that wait for their turn would be sent by a sweep, faster than the rate allows."""
    add_unqueued(collection, 35)
    unsent: list[int] = []

    async def count(request: Request, forward: Forward) -> Answer:
        query = "SELECT 1 FROM image_processing_jobs WHERE status = 'queue_failed'"
        unsent.append(len(collection.rows(query)))
        return await forward(request)

    proxy.add(SEND, count)
    settings = settings_file(bench, tmp_path)
    words = ["--rate", "1000", "--endpoint-url", proxy.endpoint_url]
    command("catalog", "enqueue", *words, settings=settings)
    assert unsent == [10, 10, 10, 5]


@pytest.mark.slow
def test_a_million_books_are_counted_in_little_memory(
    bench: Bench, collection: Collection, tmp_path: Path
) -> None:
    add_unqueued(collection, 1)
    collection.execute(
        "INSERT INTO books (title) SELECT n::text FROM generate_series(1, 999999) n;"
        "INSERT INTO book_images (book_id, s3_key, display_order, is_primary)"
        " SELECT id, id || '_a.jpg', 0, true FROM books WHERE id > 1;"
        "ANALYZE"
    )
    answer = enqueue(settings_file(bench, tmp_path), "--dry-run")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["books"] == 1_000_000
    kib = int(answer.stderr.splitlines()[-1])
    print(f"{kib / 1024:.0f} MiB")
    assert kib * 1024 < 200_000_000
