"""Messages of a book collection: what is read, and what is refused."""

from __future__ import annotations

import json

import pytest

from ingest.messages.build import catalog_message_body
from ingest.messages.identity import identify_refused
from ingest.messages.parse import no_catalog, parse_message
from serve_app.config import QueueConfig
from serve_app.contracts.job import CatalogJob, Job
from serve_app.errors import InvalidMessage

QUEUE = QueueConfig(url="https://sqs/q", output_bucket="o")
ID = "6a1f0c9e-8f5b-4a57-9c0d-3f1f0a2b4c5d"
MESSAGE = {"job_id": ID, "book_id": 7, "image_id": 12}


def test_a_message_of_the_application_is_a_catalog_job() -> None:
    [job] = parse_message(json.dumps(MESSAGE), QUEUE)
    assert job == CatalogJob(job_id=ID, book_id=7, image_id=12)
    assert job.run_id == "live"


@pytest.mark.parametrize("change", [{"image_id": None}, {"run_id": None}, {"added_later": [1]}])
def test_nulls_and_further_fields_are_accepted(change: dict[str, object]) -> None:
    [job] = parse_message(json.dumps(MESSAGE | change), QUEUE)
    assert isinstance(job, CatalogJob)
    assert job.image_id == (None if "image_id" in change else 12)


def test_an_image_that_is_left_out_is_none() -> None:
    [job] = parse_message(json.dumps({"job_id": ID, "book_id": 7}), QUEUE)
    assert isinstance(job, CatalogJob)
    assert job.image_id is None


def test_ids_of_every_form_of_a_uuid_are_one_job() -> None:
    [job] = parse_message(json.dumps(MESSAGE | {"job_id": ID.replace("-", "").upper()}), QUEUE)
    assert job.job_id == ID


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"job_id": "seven"}, "job_id: must be a UUID"),
        ({"job_id": None}, "job_id"),
        ({"book_id": "7"}, "book_id"),
        ({"book_id": 0}, "book_id"),
        ({"book_id": True}, "book_id"),
        ({"book_id": 2**31}, "book_id"),
        ({"image_id": 1.5}, "image_id"),
        ({"run_id": "a/b"}, "run_id"),
    ],
)
def test_what_no_row_can_have_is_refused(change: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidMessage, match=named):
        parse_message(json.dumps(MESSAGE | change), QUEUE)


def test_without_a_catalog_the_refusal_says_what_to_set() -> None:
    refusal = no_catalog()
    assert isinstance(refusal, InvalidMessage)
    assert "set catalog.database_url or catalog.database_secret" in refusal.message


def test_a_refused_message_is_recorded_under_its_own_ids() -> None:
    body = json.dumps(MESSAGE | {"book_id": "7", "run_id": "r1"})
    found = identify_refused(body, InvalidMessage("x"), "sqs-1")
    assert (found.run_id, found.job_id) == ("r1", ID)


def test_a_message_with_a_source_is_a_job_of_that_image() -> None:
    body = {"job_id": "j", "source": {"bucket": "b", "key": "k"}}
    [job] = parse_message(json.dumps(body), QUEUE)
    assert isinstance(job, Job)


def test_a_message_that_is_built_is_read_as_the_same_job() -> None:
    for image in (12, None):
        job = CatalogJob(job_id=ID, run_id="r1", book_id=7, image_id=image)
        body = catalog_message_body(job)
        assert list(parse_message(body, QUEUE)) == [job]
        # The worker that Foreedge replaces reads these three.
        assert json.loads(body).items() >= {"job_id": ID, "book_id": 7, "image_id": image}.items()
