"""Queues of a kind that cannot be served."""

from __future__ import annotations

import pytest

from ingest.sqs.queue_client import check_url
from serve_app.errors import InvalidConfig


def test_a_fifo_queue_cannot_be_served() -> None:
    check_url("https://sqs/images")
    with pytest.raises(InvalidConfig, match="Use a standard queue"):
        check_url("https://sqs/images.fifo")
