"""Images of the queue that would wait in Serve, and the room that requests have there."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ingest.consumer.deployment import accepted_in_flight
from serve_app.config import AppConfig
from serve_app.replica_options import max_ongoing_requests, warn_if_images_wait_in_serve


def settings(max_in_flight: int = 64, consumers: int = 1, **sections: Any) -> dict[str, Any]:
    queue = {"url": "http://127.0.0.1:9/q", "max_in_flight": max_in_flight, "consumers": consumers}
    return {"queue": queue, "ledger": {"bucket": "b"}, **sections}


@pytest.mark.parametrize(
    ("args", "warned"),
    [
        ({"http": {"max_concurrent": 65}, "pipeline": {"max_ongoing": 64}}, []),
        (settings(64, pipeline={"max_ongoing": 64}), []),
        (settings(65, pipeline={"max_ongoing": 64}), ["pipeline"]),
        (settings(33, consumers=2, pipeline={"max_ongoing": 65}), ["pipeline"]),
        (settings(65, segmenter={"max_ongoing": 64}), ["segmenter"]),
        (settings(65, segmenter={"max_ongoing": 64, "placement": "pipeline"}), []),
    ],
)
def test_more_images_of_the_queue_than_the_replicas_accept(
    args: dict[str, Any], warned: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_images_wait_in_serve(AppConfig.load(args))
    assert re.findall(r"the (\w+) replicas", caplog.text) == warned


@pytest.mark.parametrize("in_flight", [1, 64, 256, 5_000])
@pytest.mark.parametrize("consumers", [1, 3])
def test_requests_never_wait_in_serve_behind_images_of_the_queue(
    in_flight: int, consumers: int
) -> None:
    http = {"max_concurrent": 40, "replicas": 2}
    pipeline = {"replicas": 2, "max_ongoing": 100}
    config = AppConfig.load(settings(in_flight, consumers, http=http, pipeline=pipeline))
    assert config.queue is not None
    from_queue = consumers * accepted_in_flight(config, config.queue)
    accepted = 2 * max_ongoing_requests(config.pipeline.max_ongoing, config)
    assert from_queue + 2 * 40 <= accepted
    assert accepted_in_flight(config, config.queue) == min(in_flight, 200 // consumers)
