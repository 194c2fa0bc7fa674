"""The attributes of dead letters, which must be acceptable to SQS and fit into its limit."""

from __future__ import annotations

import pytest

from ingest.sqs.queue import accepted_text, check_url, fitting_attributes
from serve_app.errors import InvalidConfig


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("plain ü \U0001f4f7", "plain ü \U0001f4f7"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("nul\x00, bell\x07", "nul\ufffd, bell\ufffd"),
        ("half \ud800 pair", "half \ufffd pair"),
        ("not a character \uffff", "not a character \ufffd"),
        ("x" * 1_001, "x" * 1_000),
    ],
)
def test_a_text_has_only_what_sqs_accepts(text: str, accepted: str) -> None:
    assert accepted_text(text) == accepted


def test_attributes_fill_the_room_that_the_body_leaves() -> None:
    texts = {"code": "ab", "empty": "", "none": None, "reason": "ü"}
    code_bytes, reason_bytes = len("codeStringab"), len("reasonString") + 2

    assert fitting_attributes(texts, code_bytes + reason_bytes) == {"code": "ab", "reason": "ü"}
    assert fitting_attributes(texts, code_bytes + reason_bytes - 1) == {"code": "ab"}
    assert fitting_attributes(texts, code_bytes) == {"code": "ab"}
    assert fitting_attributes(texts, code_bytes - 1) == {}


def test_a_fifo_queue_cannot_be_served() -> None:
    check_url("https://sqs/images")
    with pytest.raises(InvalidConfig, match="Use a standard queue"):
        check_url("https://sqs/images.fifo")
