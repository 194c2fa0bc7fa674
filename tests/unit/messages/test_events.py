"""Events of S3: which of them name an image, and which are nothing to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.catalog.rules import cutout_stem
from ingest.runs.folder import RunFolder
from ingest.sources.base import is_image
from serve_app.config import LedgerConfig, QueueConfig
from serve_app.contracts.job import EventJob, Job, NamedOutput, Output, Source
from serve_app.contracts.recipe import parse_recipe
from serve_app.contracts.result_keys import output_key, thumbnail_key
from serve_app.errors import InvalidMessage
from serve_app.storage.local import LocalStore
from tests.support.image_messages import parse_image_message
from tests.unit.messages.test_parse import DEFAULTS, eventbridge, events, s3_record, sns

FILES = Path(__file__).parent / "files"
ELSEWHERE = QueueConfig(url="https://sqs/q", output_bucket="elsewhere", output_prefix="")
FINGERPRINT = "0123456789abcdef0123"

NO_IMAGES = [
    "in/new folder/",
    "in/",
    "in_$folder$",
    "in/photographs.jpg/",
    "in/notes.txt",
    "in/list.csv",
    "in/.DS_Store",
    "in/Thumbs.db",
    "in/film.mp4",
    ".jpg",
]
OWN = [
    f"shelf/in/a/{FINGERPRINT}.png",
    f"shelf/in/a/{FINGERPRINT}.webp",
    f"a/{FINGERPRINT}.jpg",
    f"cutouts/x/{FINGERPRINT}_thumb.jpg",
    "_foreedge/runs/live/results/20261128T210000.123456Z-0123456789ab-000001.jsonl.gz",
    "runs/r-1/jobs/000000.jsonl.gz",
    "ledgerruns/r/redriven/20261128T210000.1Z-aa.jsonl.gz",
    "_foreedge/runs/20261128T210000Z-0a0b0c/run.json",
    "x/y/runs/r/sent.json",
    "_foreedge/runs/r/cancelled.json",
    "_foreedge/runs/live-2026-11-28/results/20261128T210000.1Z-aa-compacted-bb.jsonl.gz",
]
PHOTOGRAPHS = [
    "in/1.jpg",
    "in/1.JPEG",
    "in/1.jfif",
    "in/1.jpe",
    "in/1.heic",
    "in/1.avif",
    f"{FINGERPRINT}.jpg",
    f"in/{FINGERPRINT}.jpeg",
    f"in/{FINGERPRINT}0.jpg",
    f"in/{FINGERPRINT[1:]}.jpg",
    f"in/{FINGERPRINT.upper()}.jpg",
    f"in/{FINGERPRINT}_thumb.png",
    "in/d41d8cd98f00b204e9800998ecf8427e.png",
    "runs/london/results/1.jpg",
    "results/run.json.jpg",
]


def bodies(key: str) -> list[str]:
    return [events(s3_record(key)), sns(events(s3_record(key))), json.dumps(eventbridge(key))]


@pytest.mark.parametrize("key", [*NO_IMAGES, *OWN])
def test_an_event_that_names_no_image_is_nothing_to_do(key: str) -> None:
    for body in bodies(key):
        assert parse_image_message(body, DEFAULTS) == []
        assert parse_image_message(body, ELSEWHERE) == []


@pytest.mark.parametrize("key", PHOTOGRAPHS)
def test_an_event_of_an_image_is_a_job(key: str) -> None:
    for body in bodies(key):
        [job] = parse_image_message(body, ELSEWHERE)
        assert isinstance(job, EventJob)
        assert job.source.key == key


def test_bulk_and_events_take_the_same_names() -> None:
    assert not any(map(is_image, [*NO_IMAGES, *OWN]))
    assert all(map(is_image, PHOTOGRAPHS))


@pytest.mark.parametrize(
    "key",
    ["4711", "in/0b9a8c6e-7d1f-4a7e-8c55-6e0d8f4b2a11", "in/a.2024", "in/v1.0-final", "a.b c"],
)
def test_a_name_that_says_nothing_is_a_job_unless_its_object_is_empty(key: str) -> None:
    [job] = parse_image_message(events(s3_record(key)), ELSEWHERE)
    assert job.source.key == key
    assert not is_image(key)
    empty = s3_record(key)
    empty["s3"]["object"]["size"] = 0
    assert parse_image_message(events(empty), ELSEWHERE) == []


def test_an_empty_image_is_a_job_that_fails() -> None:
    empty = s3_record("in/1.jpg")
    empty["s3"]["object"]["size"] = 0
    assert len(parse_image_message(events(empty), ELSEWHERE)) == 1


def test_a_setting_takes_all_names_but_folders_and_our_own() -> None:
    every = ELSEWHERE.model_copy(update={"all_names": True})
    assert len(parse_image_message(events(s3_record("in/film.raw")), every)) == 1
    for key in ["in/new folder/", "in_$folder$", *OWN]:
        assert parse_image_message(events(s3_record(key)), every) == []


def test_nothing_to_do_needs_no_output() -> None:
    bare = QueueConfig(url="https://sqs/q")
    assert parse_image_message(events(s3_record(OWN[0])), bare) == []
    with pytest.raises(InvalidMessage, match="output_bucket"):
        parse_image_message(events(s3_record()), bare)


def test_images_among_other_objects_of_one_event_are_jobs() -> None:
    keys = ["in/", "in/1.jpg", OWN[0], "in/2.jpg", OWN[5]]
    jobs = parse_image_message(events(*map(s3_record, keys)), ELSEWHERE)
    assert [job.source.key for job in jobs] == ["in/1.jpg", "in/2.jpg"]


def test_a_job_that_names_one_of_our_results_is_carried_out() -> None:
    body = {"source": {"bucket": "b", "key": OWN[0]}}
    [job] = parse_image_message(json.dumps(body), ELSEWHERE)
    assert job.source.key == OWN[0]


_KEYS = st.text(min_size=1).filter(lambda text: 1 <= len(text.encode()) <= 1024)
_PREFIXES = st.text(max_size=40)
_RECIPES = st.sampled_from(
    [{"thumbnail": {}}, {"format": "webp", "thumbnail": {}}, {"format": "jpeg", "mask_only": True}]
)


@settings(max_examples=50)
@given(_KEYS, _PREFIXES, _RECIPES)
def test_every_result_is_recognised_wherever_it_lies(
    key: str, prefix: str, recipe: dict[str, Any]
) -> None:
    output = Output(bucket="b", prefix=prefix)
    job = Job(source=Source(bucket="b", key=key), output=output, recipe=parse_recipe(recipe))
    for result in (output_key(job, FINGERPRINT), thumbnail_key(job, FINGERPRINT)):
        assert not is_image(result, all_names=True)


def test_the_results_of_the_catalog_are_recognised() -> None:
    output = NamedOutput(bucket="b", prefix="books/", name=cutout_stem(7, 12))
    job = Job(source=Source(bucket="b", key="books/7/1.jpg"), output=output)
    assert not is_image(output_key(job, FINGERPRINT), all_names=True)
    assert not is_image(thumbnail_key(job, FINGERPRINT), all_names=True)
    assert is_image("books/7_processed_12_before.png")


@settings(max_examples=50)
@given(st.text(max_size=20), st.from_regex(r"[A-Za-z0-9._-]{1,100}", fullmatch=True))
def test_every_object_of_a_ledger_is_recognised(prefix: str, run_id: str) -> None:
    folder = RunFolder(LocalStore(Path()), LedgerConfig(bucket="b", prefix=prefix), run_id)
    keys = [
        folder.key("run.json"),
        folder.key("sent.json"),
        folder.part_key("jobs", "000000"),
        folder.new_part_key("results", "0123456789ab-000000"),
        folder.new_part_key("redriven", "0a0b0c"),
    ]
    assert not any(is_image(key, all_names=True) for key in keys)


@pytest.mark.parametrize("name", ["folder", "ledger_part", "thumbnail_of_bulk"])
def test_messages_of_users_that_are_nothing_to_do(name: str) -> None:
    assert parse_image_message((FILES / f"{name}.json").read_text(), ELSEWHERE) == []


def test_an_event_with_an_empty_key_is_invalid() -> None:
    with pytest.raises(InvalidMessage, match=r"source\.key"):
        parse_image_message(events(s3_record("")), ELSEWHERE)


def test_a_key_that_is_not_utf8_is_said_to_be_so() -> None:
    record = s3_record()
    record["s3"]["object"]["key"] = "in/%FF.jpg"
    with pytest.raises(InvalidMessage, match=r"Records\.0: the key is not UTF-8"):
        parse_image_message(events(record), ELSEWHERE)
