"""Sending a run: its plan, its manifest, and each of its messages."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ingest.messages.build import message_body, new_run_id
from ingest.runs import send as bulk
from ingest.runs.checkpoint import Checkpoint
from ingest.runs.job_list import JobList, Sent
from ingest.runs.job_list_writer import JobListWriter
from ingest.runs.manifest import RunManifest, read_manifest
from ingest.sources.base import Entry
from ingest.sqs.queue_client import QueueClient
from serve_app.config import QueueConfig
from serve_app.contracts.job import Output
from serve_app.errors import InvalidConfig, InvalidRecipe, QueueUnavailable
from serve_app.storage.local import LocalStore
from tests.support.fake_sqs import FakeSqs
from tests.support.image_messages import parse_image_message
from tests.support.run_records import run_folder

QUEUE = QueueConfig(url="http://localhost/queue")
OUTPUT = Output(bucket="b")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def plan_of(
    store: LocalStore, entries: list[Entry], run_id: str = "r1", **changes: Any
) -> bulk.RunPlan:
    options: dict[str, Any] = {"description": "d", "output": OUTPUT, "recipe": "cutout"} | changes
    return bulk.plan_run(entries, folder=run_folder(store, run_id), **options)


def send(client: Any, plan: bulk.RunPlan, *options: Any) -> RunManifest:
    return bulk.send_run(QueueClient(client, QUEUE.url), plan, *options)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_what_is_on_the_queue_is_stored_every_ten_seconds(store: LocalStore) -> None:
    plan = plan_of(store, [Entry("b", "1.jpg")])
    job_list, clock = JobList(plan.folder), Clock()
    writer = JobListWriter(job_list, plan.entries, bulk.open_manifest(plan, QUEUE.url))
    seen: list[int] = []
    checkpoint = Checkpoint(job_list, writer, 0, lambda sent, **_: seen.append(sent), clock)
    checkpoint.store()
    stored = []
    for clock.now_s in (4.0, 9.9, 10.0, 10.1, 19.9, 20.0):
        checkpoint.advance(1_000)
        stored.append((job_list.sent() or Sent()).jobs)

    assert seen == [1_000, 2_000, 3_000, 4_000, 5_000, 6_000]
    # After ten seconds, and at the fifth thousand, which ends a part of the list.
    assert stored == [0, 0, 3_000, 3_000, 5_000, 5_000]


def keys_of(entries: Iterable[Entry]) -> list[str]:
    return [entry.key for entry in entries]


def test_the_consumer_can_parse_the_messages(store: LocalStore) -> None:
    plan = plan_of(store, [Entry("b", "1.jpg", "e1"), Entry("b", "2.jpg", None, "v2", "mine")])

    output = OUTPUT.model_dump()
    bodies = [message_body("r1", output, "cutout", entry) for entry in plan.entries()]
    first, second = (parse_image_message(body, QUEUE)[0] for body in bodies)

    assert (first.run_id, first.source.key, first.source.etag) == ("r1", "1.jpg", "e1")
    assert (second.job_id, second.source.version_id) == ("mine", "v2")
    assert first.output == OUTPUT


def test_jobs_keep_their_ids_within_a_run(store: LocalStore) -> None:
    entries = [Entry("b", "1.jpg", "e1")]
    first, second = (next(plan_of(store, entries).entries()) for _ in range(2))

    assert first.job_id == second.job_id
    assert next(plan_of(store, entries, run_id="r2").entries()).job_id != first.job_id
    assert next(plan_of(store, [Entry("b", "1.jpg", "e2")]).entries()).job_id != first.job_id


def test_an_image_named_twice_is_sent_once(store: LocalStore) -> None:
    plan = plan_of(store, [Entry("b", "1.jpg"), Entry("b", "1.jpg"), Entry("b", "2.jpg")])

    assert keys_of(plan.entries()) == ["1.jpg", "2.jpg"]


def test_a_run_whose_source_names_other_images_now_is_not_resumed(store: LocalStore) -> None:
    listed = list(plan_of(store, [Entry("b", f"{i}.jpg") for i in range(4)]).entries())
    same = plan_of(store, [Entry("b", f"{i}.jpg") for i in range(5)])
    assert keys_of(same.entries(listed[-1], 4)) == ["4.jpg"]

    for names in (["0.jfif", "0.jpg", "1.jpg", "2.jpg", "3.jpg"], ["0.jpg"]):
        other = plan_of(store, [Entry("b", name) for name in names])
        with pytest.raises(InvalidConfig, match=r"image 4 of d was s3://b/3\.jpg"):
            list(other.entries(listed[-1], 4))


def test_a_run_of_nothing_and_a_run_with_a_bad_name(store: LocalStore) -> None:
    with pytest.raises(InvalidConfig, match="no images"):
        plan_of(store, [])
    for name in ("../x", "live", "live-2026-01-31", "invalid", "", ".", ".."):
        with pytest.raises(InvalidConfig, match="run_id"):
            plan_of(store, [Entry("b", "1.jpg")], run_id=name)


def test_new_run_ids_differ_and_are_allowed(store: LocalStore) -> None:
    first, second = new_run_id(), new_run_id()

    assert first != second
    plan_of(store, [Entry("b", "1.jpg")], run_id=first)


@pytest.mark.parametrize("text", ["nope", '{"format":"gif"}', "{", '{"format":'])
def test_a_recipe_is_checked_before_anything_is_sent(text: str) -> None:
    with pytest.raises(InvalidRecipe):
        bulk.recipe_argument(text)


def test_an_inline_recipe_travels_as_it_is() -> None:
    assert bulk.recipe_argument('{"format": "webp"}') == {"format": "webp"}


def test_the_manifest_comes_first_and_counts_the_messages(store: LocalStore) -> None:
    class CheckingSqs(FakeSqs):
        def send_message_batch(self, QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:  # noqa: N803
            assert read_manifest(run_folder(store)).jobs == 25
            return super().send_message_batch(QueueUrl, Entries)

    client = CheckingSqs()
    seen: list[int] = []
    plan = plan_of(store, [Entry("b", f"{i}.jpg") for i in range(25)])

    def observe(*, sent: int, listed: int, complete: bool) -> None:
        assert (listed, complete) == (25, True)
        seen.append(sent)

    send(client, plan, observe)

    assert sorted(json.loads(body)["source"]["key"] for body in client.bodies) == sorted(
        keys_of(plan.entries())
    )
    assert seen == [10, 20, 25]
    assert client.calls == 3


def test_a_queue_that_does_not_exist_leaves_no_run(store: LocalStore) -> None:
    class NoQueue(FakeSqs):
        def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
            code = {"Error": {"Code": "AWS.SimpleQueueService.NonExistentQueue"}}
            raise ClientError(code, "GetQueueAttributes")  # type: ignore[arg-type]

    with pytest.raises(QueueUnavailable, match="create it"):
        send(NoQueue(), plan_of(store, [Entry("b", "1.jpg")]))
    assert list(store.list("b", "")) == []


def test_a_run_that_was_sent_is_not_sent_again(store: LocalStore) -> None:
    client: Any = FakeSqs()
    entries = [Entry("b", "1.jpg")]
    first = send(client, plan_of(store, entries))

    again = send(client, plan_of(store, entries))

    assert again.created_at == first.created_at
    assert len(client.bodies) == 1


def test_another_run_under_its_name_is_refused(store: LocalStore) -> None:
    client: Any = FakeSqs()
    entries = [Entry("b", "1.jpg")]
    send(client, plan_of(store, entries, description="s3://b/in/"))

    with pytest.raises(InvalidConfig, match=r"different source \(s3://b/in/"):
        send(client, plan_of(store, entries, description="other"))
    other = plan_of(store, entries, description="s3://b/in/", recipe="mask")
    with pytest.raises(InvalidConfig, match=r"different recipe\. .* choose another --run-id"):
        send(client, other)
