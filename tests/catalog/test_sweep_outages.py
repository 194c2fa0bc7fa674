"""Sweeps that are interrupted: SQS away, a sweep killed, and two consumers that sweep."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingest.catalog.database import Database
from ingest.catalog.login import Login
from ingest.catalog.sweep import Swept, sweep, sweep_queue
from ingest.catalog.sweep_schedule import EVERY_S, SweepSchedule
from ingest.cli.exit_codes import FAILED, UNAVAILABLE
from ingest.cli.main import app
from ingest.local.aws import use_dummy_credentials
from loadtests.harness.sqs_server import sqs_server
from serve_app.aws import aws_client
from serve_app.config import AwsConfig, CatalogConfig
from serve_app.errors import QueueUnavailable
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection
from tests.catalog.commands import json_answer, settings_file
from tests.catalog.sweeping import WANTED, add_books, queue_behind, received, swept
from tests.support import virtual_time
from tests.support.fault_effects import fail_entries, kill_caller, refuse
from tests.support.fault_proxy import Answer, Forward, Proxy, Request

SEND = "sqs:SendMessageBatch"


@pytest.fixture
def proxy(bench: Bench) -> Iterator[Proxy]:
    with Proxy(bench.aws.endpoint_url) as opened:
        yield opened


def retries(collection: Collection) -> set[tuple[str, int]]:
    query = "SELECT status, queue_retry_count AS number FROM image_processing_jobs"
    return {(row["status"], row["number"]) for row in collection.rows(query)}


def test_an_outage_of_20_minutes_counts_against_no_job(
    bench: Bench, database: Database, collection: Collection, proxy: Proxy
) -> None:
    jobs = add_books(collection, 12)
    ends: list[tuple[float, Swept]] = []

    async def inline(call: Any) -> None:
        ends.append((virtual_time.now(), call()))

    async def scenario() -> None:
        outage = proxy.add(SEND, refuse(503, "ServiceUnavailable"))
        schedule = SweepSchedule(
            database,
            queue_behind(proxy, bench),
            WANTED,
            clock=virtual_time.now,
            in_thread=inline,
            hold_s=0,
        )
        task = asyncio.create_task(schedule.run())
        await asyncio.sleep(20 * 60 + 1)
        assert retries(collection) == {("queue_failed", 0)}
        proxy.remove(outage)
        await asyncio.sleep(EVERY_S)
        task.cancel()

    virtual_time.run(scenario())
    assert [at for at, _ in ends] == [300, 600, 900, 1200, 1500]
    for _, done in ends[:-1]:
        assert isinstance(done.error, QueueUnavailable)
        # It ends at once, and does not try every row.
        assert 1 <= done.ends["failing"] <= 3
        assert done.ends["sent"] == 0
    assert ends[-1][1].error is None
    assert ends[-1][1].ends == {"sent": 12}
    assert retries(collection) == {("pending", 0)}
    assert sorted(body["job_id"] for body in received(bench)) == sorted(jobs)


def test_a_message_that_sqs_refuses_does_not_keep_the_others(
    bench: Bench, database: Database, collection: Collection, proxy: Proxy, tmp_path: Path
) -> None:
    first, *others = add_books(collection, 5)
    settings = settings_file(bench, tmp_path)
    proxy.add(
        SEND,
        fail_entries(
            lambda _, entry: first in entry["MessageBody"], "InvalidMessageContents",
            sender_fault=True,
        ),
    )  # fmt: skip
    words = ["catalog", "sweep", "--config", settings, "--json"]
    answer = CliRunner().invoke(app, [*words, "--endpoint-url", proxy.endpoint_url])
    assert answer.exit_code == FAILED
    assert '"sent":4,"superseded":0,"abandoned":0,"invalid":0,"failing":1' in answer.stdout
    assert sorted(body["job_id"] for body in received(bench)) == sorted(others)
    proxy.clear()
    assert json_answer("catalog", "sweep", settings=settings)["sent"] == 1


def test_a_sweep_that_is_killed_between_send_and_commit_leaves_the_row_for_the_next(
    bench: Bench, database: Database, collection: Collection, proxy: Proxy, tmp_path: Path
) -> None:
    [job_id] = add_books(collection, 1)
    proxy.add(SEND, kill_caller(after=True), times=1)
    settings = settings_file(bench, tmp_path)
    words = ["catalog", "sweep", "--config", settings, "--endpoint-url", proxy.endpoint_url]
    code = "from ingest.cli.main import main; main()"
    killed = subprocess.run([sys.executable, "-c", code, *words], check=False, timeout=120)
    assert killed.returncode == -9
    assert retries(collection) == {("queue_failed", 0)}
    assert [body["job_id"] for body in received(bench)] == [job_id]
    # A second message for the same job, which a consumer ends quietly.
    assert swept(bench, database).ends == {"sent": 1}
    assert [body["job_id"] for body in received(bench)] == [job_id]


def test_a_sweep_that_raises_is_logged_and_the_next_one_takes_place(
    database: Database, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    begun_at: list[float] = []

    async def fail_at_first(call: Any) -> None:
        begun_at.append(virtual_time.now())
        if len(begun_at) == 1:
            raise RuntimeError("nobody has thought of it")
        call()

    async def scenario() -> None:
        queue = sweep_queue(bench.url, bench.config.aws)
        schedule = SweepSchedule(
            database,
            queue,
            WANTED,
            clock=virtual_time.now,
            in_thread=fail_at_first,
            hold_s=0,
        )
        task = asyncio.create_task(schedule.run())
        await asyncio.sleep(2 * EVERY_S + 1)
        assert not task.done()
        task.cancel()

    virtual_time.run(scenario())
    assert begun_at == [300, 600]
    [record] = [each for each in caplog.records if each.exc_info]
    assert "the sweep failed" in record.message


def test_one_of_two_consumers_sweeps(
    bench: Bench, database: Database, settings: CatalogConfig, collection: Collection, proxy: Proxy
) -> None:
    add_books(collection, 3)
    queue = queue_behind(proxy, bench)
    begun, go_on = threading.Event(), threading.Event()

    async def hold(request: Request, forward: Forward) -> Answer:
        begun.set()
        assert await asyncio.to_thread(go_on.wait, 30)
        return await forward(request)

    proxy.add(SEND, hold)
    first = SweepSchedule(database, queue, WANTED, hold_s=0)
    second = SweepSchedule(Database(Login(settings, AwsConfig())), queue, WANTED, hold_s=0)
    results: list[Swept | None] = []
    thread = threading.Thread(target=lambda: results.append(first.sweep_if_first()))
    thread.start()
    assert begun.wait(30)
    assert second.sweep_if_first() is None
    go_on.set()
    thread.join(30)
    [done] = results
    assert done is not None
    assert done.ends == {"sent": 3}
    after = second.sweep_if_first()
    assert after is not None
    assert after.ends == {}


def test_the_command_exits_with_4_if_the_queue_does_not_answer(
    bench: Bench, collection: Collection, proxy: Proxy, tmp_path: Path
) -> None:
    add_books(collection, 1)
    settings = settings_file(bench, tmp_path)
    proxy.add(SEND, refuse(503, "ServiceUnavailable"))
    words = ["catalog", "sweep", "--config", settings, "--endpoint-url", proxy.endpoint_url]
    code = "from ingest.cli.main import main; main()"
    answer = subprocess.run(
        [sys.executable, "-c", code, *words, "--json"],
        check=False, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == UNAVAILABLE, answer.stderr
    assert '"failing":1' in answer.stdout
    assert '"error":"queue_unavailable"' in answer.stdout
    assert "queue_unavailable" in answer.stderr


@pytest.mark.slow
def test_10000_rows_are_swept(database: Database, collection: Collection) -> None:
    use_dummy_credentials()
    jobs = add_books(collection, 10_000)
    # moto needs longer for a message than the sweep.
    with sqs_server(messages=0, call_s=0) as url:
        aws = AwsConfig(endpoint_url=url.removesuffix("/000000000000/bench"))
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        found = sweep(database, sweep_queue(url, aws), WANTED)
        wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        assert found.error is None
        assert found.ends == {"sent": 10_000}
        client = aws_client("sqs", aws)
        sent = []
        while answer := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]:
            sent += [json.loads(each["Body"])["job_id"] for each in answer]
    assert sorted(sent) == sorted(jobs)
    assert retries(collection) == {("pending", 0)}
    print(f"10,000 rows in {wall_s:.0f} s, {cpu_s:.0f} s of processor in the sweep")
