"""What the operations page says first: what needs attention, and what changes by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cluster.monitoring.dashboard import RULES
from serve_app.http.operations import describe_replicas
from serve_app.http.operations_answer import Boundary, Moment, QueueState, Replicas
from serve_app.http.operations_verdict import (
    FAILED_IMAGES,
    FAILED_SHARE,
    find_attention,
    find_notes,
)

DENIED = "source s3://photos: source_forbidden: denied"
ALL_WELL: dict[str, Any] = {"reason": None, "replicas": [{}]}
RUNNING = describe_replicas("HttpApi", {"RUNNING": 2})


def moments(waiting: int | None, number: int = 180, in_flight: int = 0) -> list[Moment]:
    at = datetime(2026, 11, 29, tzinfo=UTC)
    return [Moment(at=at, done=0, failed=0, waiting=waiting, in_flight=in_flight)] * number


def backlog(drained_in_s: float | None) -> QueueState:
    return QueueState(
        waiting=9, in_flight=0, oldest_s=1, drained_in_s=drained_in_s, policy_drained_in_s=None
    )


def attention(
    *,
    boundaries: tuple[Boundary, ...] = (),
    replicas: tuple[Replicas, ...] | None = (RUNNING,),
    ingest: dict[str, Any] | None = ALL_WELL,
    queue: QueueState | None = None,
    history: list[Moment] | None = None,
    failed: dict[tuple[str, str], tuple[int, int]] | None = None,
) -> list[str]:
    return find_attention(
        boundaries,
        replicas,
        ingest,
        queue,
        moments(9) if history is None else history,
        failed or {},
    )


def test_an_application_that_is_well_needs_none() -> None:
    well = Boundary(name="queue", reason=None, consumers=0)
    assert attention(boundaries=(well,), queue=backlog(90)) == []
    assert attention(ingest=None) == []


def test_every_boundary_that_is_not_well_is_named_once() -> None:
    queue = Boundary(name="queue", reason="queue_unavailable: no answer", consumers=1)
    source = Boundary(name="source", reason=DENIED, consumers=2)
    ingest = {"reason": f"{DENIED}; the ledger is slow", "replicas": [{}, {}, {}]}
    assert attention(boundaries=(queue, source), ingest=ingest) == [
        "queue_unavailable: no answer (1 of 3 consumers)",
        f"{DENIED} (2 of 3 consumers)",
    ]
    silent = {"reason": "the replica does not answer: ReplicaLost()", "replicas": [{}]}
    assert attention(ingest=silent) == [silent["reason"]]


def test_replicas_need_attention_if_none_runs_or_serve_says_why() -> None:
    none = describe_replicas("CutoutPipeline", {"STARTING": 1}, "UPDATING", "no node\n has room")
    slow = describe_replicas("Segmenter", {"RUNNING": 1, "STARTING": 1}, "UPSCALING", "slow")
    ill = describe_replicas("HttpApi", {"RUNNING": 1, "STARTING": 1}, "UNHEALTHY", "it crashed")
    starting = describe_replicas("SqsIngest", {"RUNNING": 1, "STARTING": 2})
    assert attention(replicas=(none, slow, ill, starting)) == [
        "CutoutPipeline has no running replica. no node has room",
        "HttpApi is unhealthy. it crashed",
    ]
    assert find_notes([none, slow, ill, starting, RUNNING]) == [
        "Segmenter: 1 of 2 replicas run, 1 starting. slow",
        "HttpApi: 1 of 2 replicas run, 1 starting.",
        "SqsIngest: 1 of 3 replicas run, 2 starting.",
    ]


def test_a_controller_that_does_not_answer_needs_attention() -> None:
    assert attention(replicas=None) == [
        "Serve's controller does not answer, so it is unknown how many replicas run."
    ]


@pytest.mark.parametrize(
    ("queue", "waiting", "stuck"),
    [
        (backlog(None), moments(9), True),
        (backlog(100), moments(9), False),
        # A run that has just begun has no image yet.
        (backlog(None), moments(0, 175) + moments(9, 5), False),
        (backlog(None), moments(0, 173) + moments(9, 7), True),
        (None, moments(None), False),
        (backlog(None), moments(0, in_flight=1), False),
    ],
    ids=["stuck", "draining", "new", "a minute", "unknown", "a slow image"],
)
def test_messages_that_nobody_takes(
    queue: QueueState | None, waiting: list[Moment], stuck: bool
) -> None:
    said = "Messages wait, and none was processed in the last minute."
    assert attention(queue=queue, history=waiting) == [said] * stuck


def test_many_failures_of_one_code_need_attention_as_in_the_alert() -> None:
    many = {("queue", "no_subject"): (60, 1000), ("http", "corrupt_image"): (30, 40)}
    assert attention(failed=many) == [
        "6% of the images by the queue have failed with no_subject within 15 minutes.",
        "75% of the images by HTTP have failed with corrupt_image within 15 minutes.",
    ]
    few = {("queue", "no_subject"): (FAILED_IMAGES, 100), ("queue", "x"): (49, 1000)}
    assert attention(failed=few) == []
    cancelled = {("http", "cancelled"): (90, 100), ("queue", "run_cancelled"): (9_000, 9_100)}
    assert attention(failed=cancelled) == []
    rules = RULES.read_text()
    assert f"foreedge:images_failed:ratio15m > {FAILED_SHARE}" in rules
    assert f'{{outcome="failed", code!~"cancelled|run_cancelled"}} > {FAILED_IMAGES}' in rules
