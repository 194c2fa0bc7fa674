"""The local SQS and S3: a real server, with as many large objects as a demonstration has."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ingest.local.aws import LocalAws
from serve_app.aws import aws_client
from serve_app.storage.s3 import S3Store

OPEN_FILES = 64


@contextmanager
def few_open_files() -> Iterator[None]:
    """Limit the open files that a new process has to begin with, as a shell on a laptop does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_holds_more_large_objects_than_a_process_may_open_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An object of more bytes is a file that the server keeps open. By default 5 MB.
    monkeypatch.setenv("MOTO_S3_DEFAULT_KEY_BUFFER_SIZE", "1000")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    with ExitStack() as stack:
        with few_open_files():
            server = stack.enter_context(LocalAws())
        server.create_bucket("bucket")
        store = S3Store(aws_client("s3", server.aws))
        for number in range(2 * OPEN_FILES):
            store.put("bucket", f"{number}", bytes(2_000), "image/jpeg")
        assert len(store.get("bucket", "0")) == 2_000
