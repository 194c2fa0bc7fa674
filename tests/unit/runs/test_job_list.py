"""Runs of several parts: stopped and resumed at every kind of moment, nothing is lost."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.runs import send as bulk
from ingest.runs.folder import RunFolder
from ingest.runs.job_list import PART_JOBS, JobList
from ingest.runs.manifest import read_manifest
from ingest.sources.base import Entry, ImageSource, ListedImages
from ingest.sources.distinct import Distinct
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.sender import RateLimiter
from serve_app.errors import (
    ForeedgeError,
    InvalidConfig,
    InvalidMessage,
    QueueUnavailable,
    StorageUnavailable,
)
from serve_app.storage.local import LocalStore
from tests.unit.runs.test_send import LEDGER, OUTPUT, QUEUE, FakeSqs

MANY = 2 * PART_JOBS + 1_234


class Shelf(ImageSource):
    """Photographs that can be listed again from a key on; counts what is read of it."""

    ordered = True

    def __init__(self, count: int, stop: Callable[[int], None] = lambda _: None) -> None:
        super().__init__()
        self.keys = [f"in/{number:06d}.jpg" for number in range(count)]
        self.read = 0
        self._stop = stop

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        for key in self.keys:
            if after is None or key > after:
                self.read += 1
                self._stop(self.read)
                yield Entry("b", key)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def plan_of(store: LocalStore, source: ImageSource) -> bulk.RunPlan:
    folder = RunFolder(store, LEDGER, "r1")
    return bulk.plan_run(source, folder=folder, description="d", output=OUTPUT, recipe="cutout")


def send(client: Any, store: LocalStore, source: ImageSource) -> None:
    bulk.send_run(QueueClient(client, QUEUE.url), plan_of(store, source))


def keys_of(client: FakeSqs) -> list[str]:
    return sorted(json.loads(body)["source"]["key"] for body in client.bodies)


@pytest.mark.parametrize("count", [1, PART_JOBS - 1, PART_JOBS, PART_JOBS + 1, MANY])
def test_the_list_has_every_job_once(store: LocalStore, count: int) -> None:
    client, shelf = FakeSqs(), Shelf(count)

    send(client, store, shelf)

    jobs = JobList(RunFolder(store, LEDGER, "r1"))
    assert keys_of(client) == shelf.keys
    assert [entry.key for entry in jobs.entries()] == shelf.keys
    assert jobs.parts() == -(-count // PART_JOBS)
    manifest = read_manifest(RunFolder(store, LEDGER, "r1"))
    assert (manifest.jobs, manifest.complete) == (count, True)
    sent = jobs.sent()
    assert sent is not None
    assert (sent.jobs, sent.complete) == (count, True)


@pytest.mark.parametrize(
    ("call", "error"),
    [(0, KeyboardInterrupt), (7, QueueUnavailable), (PART_JOBS // 10, KeyboardInterrupt),
     (900, QueueUnavailable)],
)  # fmt: skip
def test_sending_goes_on_where_it_was_stopped(
    store: LocalStore, call: int, error: type[BaseException]
) -> None:
    shelf = Shelf(MANY)

    class Failing(FakeSqs):
        def send_message_batch(self, QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:  # noqa: N803
            with lock:
                number = next(numbers)
            if number == call:
                raise error("stopped")
            return super().send_message_batch(QueueUrl, Entries)

    lock, numbers = threading.Lock(), itertools.count()
    first, second = Failing(), FakeSqs()
    with pytest.raises(error):
        send(first, store, shelf)
    sent = JobList(RunFolder(store, LEDGER, "r1")).sent()
    assert sent is not None
    assert sent.jobs <= 10 * call
    assert not sent.complete

    send(second, store, shelf)

    assert len(second.bodies) == MANY - sent.jobs
    assert set(keys_of(first)) | set(keys_of(second)) == set(shelf.keys)


def test_a_failure_tells_how_to_go_on(store: LocalStore) -> None:
    def refuse(call: int, entries: list[Any]) -> list[Any]:
        wrong = [{"Id": item["Id"], "SenderFault": True, "Code": "No"} for item in entries]
        return wrong if call == 3 else []

    with pytest.raises(QueueUnavailable, match=r"\d0 messages are on the queue.*--run-id r1"):
        send(FakeSqs(refuse), store, Shelf(MANY))


@pytest.mark.parametrize("read", [5, PART_JOBS + 3, 2 * PART_JOBS + 3])
def test_listing_goes_on_where_it_was_stopped(store: LocalStore, read: int) -> None:
    def stop(number: int) -> None:
        # One was read before, to see that there is any.
        if number == read + 1:
            raise StorageUnavailable("away")

    broken, sound = Shelf(MANY, stop), Shelf(MANY)
    first, second = FakeSqs(), FakeSqs()
    with pytest.raises(StorageUnavailable, match=r"away -- .*nothing is lost"):
        send(first, store, broken)
    listed = JobList(RunFolder(store, LEDGER, "r1")).parts() * PART_JOBS
    assert len(first.bodies) <= listed <= read

    send(second, store, sound)

    assert sorted(keys_of(first) + keys_of(second)) == sound.keys
    # What was listed is not listed again.
    assert sound.read == 1 + MANY - listed


def test_a_source_that_changed_in_between_loses_nothing(store: LocalStore) -> None:
    def stop(number: int) -> None:
        if number == PART_JOBS + 100:
            raise StorageUnavailable("away")

    first, second, changed = FakeSqs(), FakeSqs(), Shelf(MANY)
    with pytest.raises(StorageUnavailable):
        send(first, store, Shelf(MANY, stop))
    gone = {changed.keys.pop(3), changed.keys.pop(PART_JOBS + 50)}

    send(second, store, changed)

    assert set(keys_of(first) + keys_of(second)) | gone == set(Shelf(MANY).keys)


def test_photographs_without_an_order_go_on_by_their_number(store: LocalStore) -> None:
    entries = [Entry("b", f"{number % 7_000}.jpg") for number in range(14_000)]
    client: Any = FakeSqs(lambda call, items: _refused(items) if call == 550 else [])
    with pytest.raises(QueueUnavailable):
        send(client, store, ListedImages(entries))

    again = FakeSqs()
    send(again, store, ListedImages(entries))

    assert set(keys_of(client)) | set(keys_of(again)) == {
        f"{number}.jpg" for number in range(7_000)
    }
    assert read_manifest(RunFolder(store, LEDGER, "r1")).jobs == 7_000


def _refused(items: list[Any]) -> list[Any]:
    return [{"Id": item["Id"], "SenderFault": True, "Code": "No"} for item in items]


def test_a_crash_before_the_manifest_was_stored(store: LocalStore) -> None:
    shelf = Shelf(10)
    send(FakeSqs(), store, shelf)
    manifest = read_manifest(RunFolder(store, LEDGER, "r1"))
    folder = RunFolder(store, LEDGER, "r1")
    stale = manifest.model_copy(update={"jobs": 0, "complete": False})
    store.put("b", folder.key("run.json"), stale.model_dump_json().encode(), "application/json")
    store.put("b", folder.key("sent.json"), b'{"jobs": 0}', "application/json")
    shelf.keys.append("in/later.jpg")

    client = FakeSqs()
    send(client, store, shelf)

    # The list was complete, as its last part says, which is not full.
    assert keys_of(client) == shelf.keys[:10]
    assert read_manifest(RunFolder(store, LEDGER, "r1")) == manifest


def test_two_processes_do_not_make_one_list(store: LocalStore) -> None:
    other = JobList(RunFolder(store, LEDGER, "r1"))

    def interfere(number: int) -> None:
        if number == PART_JOBS + 100:
            other.write(1, [Entry("b", "x.jpg", None, None, "x")])

    with pytest.raises(InvalidConfig, match="sent by another process"):
        send(FakeSqs(), store, Shelf(MANY, interfere))


def test_a_list_that_is_damaged(store: LocalStore) -> None:
    folder = RunFolder(store, LEDGER, "r1")
    jobs = JobList(folder)
    for data in (b"x", gzip.compress(b"[1]"), gzip.compress(b'{"name": 1}')):
        store.put("b", folder.part_key("jobs", "000000"), data, "x")
        with pytest.raises(InvalidMessage, match="damaged or not a part"):
            list(jobs.entries())
    store.put("b", folder.key("sent.json"), b"{", "x")
    with pytest.raises(ForeedgeError, match=r"sent\.json"):
        jobs.sent()


def test_a_rate_holds_at_every_moment() -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = RateLimiter(20, sleep, lambda: now[0])
    for _ in range(3):
        pace.wait(10)
    assert slept == [0.5, 0.5]
    # A pause is no credit.
    now[0] += 60
    pace.wait(10)
    pace.wait(10)
    assert slept == [0.5, 0.5, 0.5]


def test_names_are_told_apart() -> None:
    names = Distinct()
    assert [names.add("a", "b"), names.add("ab", None), names.add("a", "b")] == [True, True, False]
    names.close()
