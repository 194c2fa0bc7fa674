"""The attributes of dead letters: ours and the producer's, within the limits of SQS."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.sqs.dead_letters import (
    accepted_text,
    dead_letter_attributes,
    earlier_job_id,
    fitting_attributes,
)
from ingest.sqs.limits import MESSAGE_ATTRIBUTES, PAYLOAD_BYTES

OURS = ["foreedge.code", "foreedge.job_id", "foreedge.reason"]


def text(value: str, kind: str = "String") -> dict[str, Any]:
    return {"DataType": kind, "StringValue": value}


def attributes(producers: dict[str, Any], body: str = "{}") -> dict[str, Any]:
    return dead_letter_attributes(body, producers, "no_subject", "nothing to keep", "j")


def size(found: dict[str, Any], body: str = "") -> int:
    total = len(body.encode())
    for name, value in found.items():
        content = value["BinaryValue"] if "BinaryValue" in value else value["StringValue"].encode()
        total += len(name.encode()) + len(value["DataType"].encode()) + len(content)
    return total


@pytest.mark.parametrize(
    ("given_text", "accepted"),
    [
        ("plain ü \U0001f4f7", "plain ü \U0001f4f7"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("nul\x00, bell\x07", "nul\ufffd, bell\ufffd"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("not a character \uffff", "not a character \ufffd"),
        ("x" * 1_001, "x" * 1_000),
    ],
)
def test_a_text_has_only_what_sqs_accepts(given_text: str, accepted: str) -> None:
    assert accepted_text(given_text) == accepted


def test_attributes_fill_the_room_that_the_body_leaves() -> None:
    texts = {"code": "ab", "empty": "", "none": None, "reason": "ü"}
    code_bytes, reason_bytes = len("codeStringab"), len("reasonString") + 2

    assert fitting_attributes(texts, code_bytes + reason_bytes) == {"code": "ab", "reason": "ü"}
    assert fitting_attributes(texts, code_bytes + reason_bytes - 1) == {"code": "ab"}
    assert fitting_attributes(texts, code_bytes) == {"code": "ab"}
    assert fitting_attributes(texts, code_bytes - 1) == {}


def test_what_the_producer_attached_is_carried_as_it_is() -> None:
    producers = {
        "tenant": text("books"),
        "priority": text("7", "Number.int"),
        "token": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
    }
    received = {name: {**value, "StringListValues": []} for name, value in producers.items()}
    found = attributes(received)
    assert {name: found[name] for name in producers} == producers
    assert sorted(set(found) - set(producers)) == OURS
    assert found["foreedge.reason"] == text("nothing to keep")


def test_seven_attributes_of_a_producer_have_room() -> None:
    producers = {f"a{n}": text("x") for n in range(7)}
    found = attributes(producers)
    assert sorted(found) == [*producers, *OURS]


def test_of_more_attributes_six_are_kept_and_the_others_are_named() -> None:
    producers = {f"a{n}": text("x") for n in range(10)}
    found = attributes(producers)
    assert len(found) == MESSAGE_ATTRIBUTES
    assert found["foreedge.dropped"]["StringValue"] == "a6, a7, a8, a9"
    assert set(OURS) < set(found)


def test_attributes_that_do_not_fit_next_to_the_body_are_named() -> None:
    body = "x" * (PAYLOAD_BYTES - 300)
    producers = {"large": text("y" * 250), "small": text("z")}
    found = attributes(producers, body)
    assert found["small"] == text("z")
    assert found["foreedge.dropped"]["StringValue"] == "large"
    assert size(found, body) <= PAYLOAD_BYTES


def test_a_dead_letter_that_fails_again_carries_its_new_reason_alone() -> None:
    producers = {"tenant": text("books")} | {f"a{n}": text("x") for n in range(9)}
    earlier = attributes(producers)
    again = dead_letter_attributes("{}", earlier, "corrupt_image", "cut off", "j")
    assert again["foreedge.code"] == text("corrupt_image")
    assert again["foreedge.reason"] == text("cut off")
    assert "foreedge.dropped" not in again
    assert earlier_job_id(earlier) == earlier_job_id(again) == "j"


def test_only_an_id_of_a_job_is_taken_for_an_earlier_one() -> None:
    assert earlier_job_id({}) is None
    assert earlier_job_id({"foreedge.job_id": text("x" * 201)}) is None
    binary = {"DataType": "Binary", "BinaryValue": b"j"}
    assert earlier_job_id({"foreedge.job_id": binary}) is None


_ATTRIBUTES = st.dictionaries(
    st.text("abcdefghij", min_size=1, max_size=4),
    st.text(max_size=40).map(text),
    max_size=MESSAGE_ATTRIBUTES,
)


@settings(max_examples=50)
@given(_ATTRIBUTES, st.integers(0, 600))
def test_every_dead_letter_keeps_to_the_limits_of_sqs(
    producers: dict[str, Any], room_bytes: int
) -> None:
    body = "x" * (PAYLOAD_BYTES - room_bytes)
    found = attributes(producers, body)
    assert len(found) <= MESSAGE_ATTRIBUTES
    assert size(found, body) <= PAYLOAD_BYTES
    for name in set(found) & set(producers):
        assert found[name] == producers[name]
    if "foreedge.reason" in found:
        lost = sorted(set(producers) - set(found))
        assert found.get("foreedge.dropped", text(""))["StringValue"] == ", ".join(lost)
