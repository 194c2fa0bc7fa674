"""Redriving failures: which ones, only once, and what is recorded if it stops half way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.runs.redrive import Redriven, RedriveOptions, redrive_failures, redriven_jobs
from ingest.runs.status import RunMonitor
from ingest.sqs.queue_client import QueueClient
from serve_app.contracts.job import Output, Source
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.recipe import Recipe
from serve_app.errors import QueueUnavailable
from serve_app.storage.local import LocalStore
from tests.support.fake_sqs import FakeSqs, refuse_entries
from tests.support.run_records import outcome, run_folder, run_manifest, write_results

MANIFEST = run_manifest(3, output=Output(bucket="o", prefix="p/"), recipe=Recipe(format="webp"))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def failure(job_id: str, minute: int = 1, code: str = "no_subject") -> Outcome:
    source = Source(bucket="b", key=f"in/{job_id}.jpg", etag="e")
    return outcome("failed", minute, job_id, code=code, source=source)


def again(store: LocalStore, client: Any = None, **options: Any) -> tuple[Redriven, list[Any]]:
    client = client or FakeSqs()
    folder, wanted = run_folder(store), RedriveOptions(**options)
    done = redrive_failures(QueueClient(client, "q"), folder, MANIFEST, wanted)
    return done, [json.loads(body) for body in client.bodies]


def test_failures_are_sent_as_they_were(store: LocalStore) -> None:
    write_results(
        store, "1", failure("a"), failure("b"), outcome("done", 2, "b"), outcome("done", 1, "c")
    )

    done, [message] = again(store)

    assert done == Redriven(frozenset({"a"}), 0, 0)
    assert (message["job_id"], message["run_id"]) == ("a", "r1")
    assert message["source"] == {"bucket": "b", "key": "in/a.jpg", "etag": "e"}
    assert message["output"] == {"bucket": "o", "prefix": "p/"}
    assert message["recipe"]["format"] == "webp"


def test_a_second_redrive_sends_nothing_until_the_job_failed_again(store: LocalStore) -> None:
    write_results(store, "1", failure("a"))
    assert RunMonitor(run_folder(store), MANIFEST).update().counts["failed"] == 1
    again(store)
    now = RunMonitor(run_folder(store), MANIFEST).update()
    assert (now.counts["failed"], now.missing) == (0, 3)

    assert again(store) == (Redriven(frozenset(), 1, 0), [])

    write_results(store, "2", failure("a", minute=9))
    assert len(again(store)[1]) == 1


def test_the_redriven_jobs_are_those_that_have_not_failed_since(store: LocalStore) -> None:
    write_results(store, "1", *map(failure, "abcd"), outcome("done", 1, "e"))
    again(store, code="no_subject")
    assert redriven_jobs(run_folder(store)) == set("abcd")

    write_results(store, "2", outcome("done", 9, "a"), failure("b", minute=9))
    write_results(store, "3", outcome("skipped_existing", 9, "c"))
    assert redriven_jobs(run_folder(store)) == set("acd")


def test_only_one_code(store: LocalStore) -> None:
    write_results(store, "1", failure("a"), failure("b", code="source_changed"))

    _, [message] = again(store, code="source_changed", as_they_are_now=True, recipe="mask")

    assert message["recipe"] == "mask"
    assert message["source"] == {"bucket": "b", "key": "in/b.jpg"}
    assert again(store, code="nothing_such")[1] == []


def test_a_failure_that_names_no_image_is_counted(store: LocalStore) -> None:
    write_results(store, "1", outcome("failed", 1, "x", code="invalid_message"))

    assert again(store) == (Redriven(frozenset(), 0, 1), [])


def test_what_was_sent_before_it_stopped_is_not_sent_again(store: LocalStore) -> None:
    write_results(store, "1", *(failure(f"{number:03}") for number in range(100)))
    first: Any = FakeSqs(
        lambda _, items: refuse_entries([i for i in items if "050" in i["MessageBody"]])
    )
    with pytest.raises(QueueUnavailable, match="No"):
        again(store, first)

    done, messages = again(store)

    assert {m["job_id"] for m in messages} >= {f"{number:03}" for number in range(50, 60)}
    assert done.waiting == 50
    assert len(messages) == 50


def test_a_catalog_job_is_sent_as_its_application_sends_it(store: LocalStore) -> None:
    job_id = "6a1f0c9e-8f5b-4a57-9c0d-3f1f0a2b4c5d"
    of_image = {"book_id": 7, "image_id": 12}
    without = "00000000-8f5b-4a57-9c0d-3f1f0a2b4c5d"
    write_results(
        store,
        "1",
        failure("a"),
        outcome("failed", 1, job_id, source=failure("a").source, **of_image),
        outcome("failed", 2, without, book_id=8),
    )
    done, messages = again(store)
    assert done == Redriven(frozenset({"a", job_id, without}), 0, 0)
    by_id = {message["job_id"]: message for message in messages}
    assert by_id[job_id] == {"job_id": job_id, "run_id": "r1", **of_image}
    assert by_id[without] == {"job_id": without, "run_id": "r1", "book_id": 8, "image_id": None}
    assert "source" in by_id["a"]
