"""Runs of several parts: wherever one is stopped and resumed, Nothing is lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.runs import send as bulk
from ingest.runs.job_list import PART_JOBS, JobList
from ingest.runs.manifest import read_manifest
from ingest.sources.base import Entry, ImageSource, ListedImages
from ingest.sqs.queue_client import QueueClient
from serve_app.contracts.job import Output
from serve_app.errors import (
    ForeedgeError,
    InvalidConfig,
    InvalidMessage,
    QueueUnavailable,
    StorageUnavailable,
)
from serve_app.storage.local import LocalStore
from tests.support.fake_sqs import FakeSqs, refuse_entries
from tests.support.run_records import run_folder

MANY = 2 * PART_JOBS + 1_234


class OrderedImages(ImageSource):
    """An ordered source of images that counts how many were read."""

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
    folder = run_folder(store)
    return bulk.plan_run(
        source, folder=folder, description="d", output=Output(bucket="b"), recipe="cutout"
    )


def send(client: Any, store: LocalStore, source: ImageSource) -> None:
    bulk.send_run(QueueClient(client, "http://localhost/queue"), plan_of(store, source))


def keys_of(client: FakeSqs) -> list[str]:
    return sorted(json.loads(body)["source"]["key"] for body in client.bodies)


@pytest.mark.parametrize("count", [1, PART_JOBS - 1, PART_JOBS, PART_JOBS + 1, MANY])
def test_the_list_has_every_job_once(store: LocalStore, count: int) -> None:
    client, shelf = FakeSqs(), OrderedImages(count)

    send(client, store, shelf)

    jobs = JobList(run_folder(store))
    assert keys_of(client) == shelf.keys
    assert [entry.key for entry in jobs.entries()] == shelf.keys
    assert jobs.parts() == -(-count // PART_JOBS)
    manifest = read_manifest(run_folder(store))
    assert (manifest.jobs, manifest.complete) == (count, True)
    sent = jobs.sent()
    assert sent is not None
    assert (sent.jobs, sent.complete) == (count, True)


@pytest.mark.parametrize(
    ("call", "error"),
    [(0, KeyboardInterrupt), (7, QueueUnavailable), (PART_JOBS // 10, KeyboardInterrupt),
     (900, QueueUnavailable)],
)  # fmt: skip
def test_sending_resumes_where_it_was_stopped(
    store: LocalStore, call: int, error: type[BaseException]
) -> None:
    shelf = OrderedImages(MANY)

    class Failing(FakeSqs):
        def send_message_batch(self, QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:  # noqa: N803
            # By its content: threads take the batches in order and may call SQS in another one.
            if json.loads(Entries[0]["MessageBody"])["source"]["key"] == shelf.keys[10 * call]:
                raise error("stopped")
            return super().send_message_batch(QueueUrl, Entries)

    first, second = Failing(), FakeSqs()
    with pytest.raises(error):
        send(first, store, shelf)
    sent = JobList(run_folder(store)).sent()
    assert sent is not None
    assert sent.jobs <= 10 * call
    assert not sent.complete

    send(second, store, shelf)

    assert len(second.bodies) == MANY - sent.jobs
    assert set(keys_of(first)) | set(keys_of(second)) == set(shelf.keys)


def test_a_failure_says_how_to_resume(store: LocalStore) -> None:
    def refuse(call: int, entries: list[Any]) -> list[Any]:
        wrong = [{"Id": item["Id"], "SenderFault": True, "Code": "No"} for item in entries]
        return wrong if call == 3 else []

    with pytest.raises(QueueUnavailable, match=r"messages sent: \d*0\..*--run-id r1"):
        send(FakeSqs(refuse), store, OrderedImages(MANY))


@pytest.mark.parametrize("read", [5, PART_JOBS + 3, 2 * PART_JOBS + 3])
def test_listing_resumes_where_it_was_stopped(store: LocalStore, read: int) -> None:
    def stop(number: int) -> None:
        # One was read before, to see that there is any.
        if number == read + 1:
            raise StorageUnavailable("away")

    broken, sound = OrderedImages(MANY, stop), OrderedImages(MANY)
    first, second = FakeSqs(), FakeSqs()
    with pytest.raises(StorageUnavailable, match=r"away -- .*Nothing is lost"):
        send(first, store, broken)
    listed = JobList(run_folder(store)).parts() * PART_JOBS
    assert len(first.bodies) <= listed <= read

    send(second, store, sound)

    assert sorted(keys_of(first) + keys_of(second)) == sound.keys
    # What was listed is not listed again.
    assert sound.read == 1 + MANY - listed


def test_a_source_that_changed_in_between_loses_nothing(store: LocalStore) -> None:
    def stop(number: int) -> None:
        if number == PART_JOBS + 100:
            raise StorageUnavailable("away")

    first, second, changed = FakeSqs(), FakeSqs(), OrderedImages(MANY)
    with pytest.raises(StorageUnavailable):
        send(first, store, OrderedImages(MANY, stop))
    gone = {changed.keys.pop(3), changed.keys.pop(PART_JOBS + 50)}

    send(second, store, changed)

    assert set(keys_of(first) + keys_of(second)) | gone == set(OrderedImages(MANY).keys)


def test_a_source_without_an_order_resumes_by_number(store: LocalStore) -> None:
    entries = [Entry("b", f"{number % 7_000}.jpg") for number in range(14_000)]
    client: Any = FakeSqs(lambda call, items: refuse_entries(items) if call == 550 else [])
    with pytest.raises(QueueUnavailable):
        send(client, store, ListedImages(entries))

    again = FakeSqs()
    send(again, store, ListedImages(entries))

    assert set(keys_of(client)) | set(keys_of(again)) == {
        f"{number}.jpg" for number in range(7_000)
    }
    assert read_manifest(run_folder(store)).jobs == 7_000


def test_a_crash_before_the_manifest_was_stored(store: LocalStore) -> None:
    shelf = OrderedImages(10)
    send(FakeSqs(), store, shelf)
    manifest = read_manifest(run_folder(store))
    folder = run_folder(store)
    stale = manifest.model_copy(update={"jobs": 0, "complete": False})
    store.put("b", folder.key("run.json"), stale.model_dump_json().encode(), "application/json")
    store.put("b", folder.key("sent.json"), b'{"jobs": 0}', "application/json")
    shelf.keys.append("in/later.jpg")

    client = FakeSqs()
    send(client, store, shelf)

    # The list was complete, as its last part says, which is not full.
    assert keys_of(client) == shelf.keys[:10]
    assert read_manifest(run_folder(store)) == manifest


def test_two_processes_do_not_make_one_list(store: LocalStore) -> None:
    other = JobList(run_folder(store))

    def interfere(number: int) -> None:
        if number == PART_JOBS + 100:
            other.write(1, [Entry("b", "x.jpg", None, None, "x")])

    with pytest.raises(InvalidConfig, match="sent by another process"):
        send(FakeSqs(), store, OrderedImages(MANY, interfere))


def test_a_damaged_list_is_reported(store: LocalStore) -> None:
    folder = run_folder(store)
    jobs = JobList(folder)
    for data in (b"x", gzip.compress(b"[1]"), gzip.compress(b'{"name": 1}')):
        store.put("b", folder.part_key("jobs", "000000"), data, "x")
        with pytest.raises(InvalidMessage, match="damaged or not a part"):
            list(jobs.entries())
    store.put("b", folder.key("sent.json"), b"{", "x")
    with pytest.raises(ForeedgeError, match=r"sent\.json"):
        jobs.sent()


class LostAnswers(LocalStore):
    """A store that keeps what is written, and whose client repeats each write and sees its own."""

    def put_if_absent(
        self, bucket: str, key: str, data: bytes, media_type: str, *, model: str | None = None
    ) -> bool:
        super().put_if_absent(bucket, key, data, media_type)
        return super().put_if_absent(bucket, key, data, media_type)


def test_a_run_survives_lost_answers(tmp_path: Path) -> None:
    store = LostAnswers(tmp_path)
    client: Any = FakeSqs()
    manifest = bulk.send_run(QueueClient(client, "q"), plan_of(store, OrderedImages(PART_JOBS + 1)))
    assert (manifest.jobs, len(client.bodies)) == (PART_JOBS + 1, PART_JOBS + 1)


def test_a_part_of_another_process_is_not_taken_for_an_own_one(store: LocalStore) -> None:
    entries = [Entry("b", "in/1.jpg", None, None, "a")]
    ours = JobList(run_folder(store))
    ours.write(0, entries)
    ours.write(0, entries)
    with pytest.raises(InvalidConfig, match="being sent by another process"):
        JobList(run_folder(store)).write(0, entries)
