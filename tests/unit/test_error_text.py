"""Errors show no credentials, and none is longer than the ledger should keep."""

from __future__ import annotations

import pickle

import pytest
from botocore.exceptions import EndpointConnectionError

from serve_app.error_text import MAX_CHARACTERS
from serve_app.errors import InternalError, Overloaded, concrete_errors
from serve_app.storage.s3 import map_s3_error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://b.example/k.jpg?X-Amz-Signature=s failed", "https://b.example/k.jpg failed"),
        ("HTTP://me:secret@h:9000/b/k: 500", "HTTP://h:9000/b/k: 500"),
        ("from https://a@b@h/x#secret to http://h?secret", "from https://h/x to http://h"),
        ("<https://h/x?a='secret'&b=(secret)>", "<https://h/x>"),
        ("s3://bucket/what?.jpg does not exist", "s3://bucket/what?.jpg does not exist"),
        ("mail me@example.com", "mail me@example.com"),
    ],
)
def test_urls_are_shown_without_user_and_query(text: str, shown: str) -> None:
    for kind in concrete_errors():
        error = kind(text)
        assert (error.message, str(error)) == (shown, shown)


def test_an_endpoint_with_a_password_is_not_shown_when_it_cannot_be_reached() -> None:
    reason = EndpointConnectionError(endpoint_url="http://me:secret@minio:9000/b?list-type=2")
    message = map_s3_error(reason, "s3://b/k").message
    assert "http://minio:9000/b" in message
    assert "secret" not in message
    assert "list-type" not in message


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    message = InternalError("begin " + "x" * 3_000_000 + " end").message
    assert message.startswith("begin ")
    assert message.endswith(" end")
    assert "2,998,010 characters left out" in message
    assert len(message) < MAX_CHARACTERS + 100


def test_an_error_is_one_printable_line() -> None:
    message = InternalError("s3://b/\x1b[2J\n\u202egpj. does not exist").message
    assert message == "s3://b/\\x1b[2J\\n\\u202egpj. does not exist"
    assert len(InternalError("\x1b" * 1_000_000).message) < MAX_CHARACTERS + 100


def test_an_error_is_the_same_after_a_way_between_processes() -> None:
    error = Overloaded("x" * 5_000, 7)
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.retry_after_s) == (error.message, 7)
