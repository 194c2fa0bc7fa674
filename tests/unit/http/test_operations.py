"""The reports of all replicas become one answer."""

from __future__ import annotations

from typing import Any

from serve_app.http.operations import describe_replicas, summarize_operations
from serve_app.http.operations_answer import Operations
from serve_app.serving.metrics import (
    DEAD_LETTERS,
    DRAIN_SECONDS,
    HTTP_REFUSALS,
    IMAGES,
    LEASES_LOST,
    MESSAGES_IN_FLIGHT,
    MESSAGES_RETRIED,
    OLDEST_RECEIVED_SECONDS,
    QUEUE_MESSAGES,
    STAGE_SECONDS,
)
from serve_app.serving.recent_metrics import (
    MOST_FAILURES,
    SLOT_S,
    SLOTS,
    RecentFailure,
    RecentMetrics,
    RecentReport,
)

NOW_S = 1_000_005.0
HEALTHY = {"healthy": True, "reason": None}


def images(number: float, *, way_in: str = "queue", code: str = "") -> tuple[Any, ...]:
    return IMAGES, (way_in, "failed" if code else "done", code, "" if code else "folio"), number


def report(
    *notes: tuple[Any, ...], before_s: float = 10, failures: tuple[RecentFailure, ...] = ()
) -> RecentReport:
    """Return the report of a replica that recorded something some seconds ago."""
    times = iter([NOW_S - before_s, NOW_S])
    recent = RecentMetrics(lambda: next(times))
    recent.note(notes)
    return RecentReport(recent.values(), failures)


def summarize(*reports: RecentReport) -> Operations:
    return summarize_operations(reports, [], HEALTHY, NOW_S)


def test_images_of_all_replicas_are_added() -> None:
    found = summarize(
        report(images(60), images(20, code="no_subject")),
        report(images(30), images(10, way_in="http", code="corrupt_image"), before_s=60),
    )
    assert found.images_per_s == 2
    assert found.outcomes == {"done": 90, "failed": 30}
    assert found.failures_by_code == {"no_subject": 20, "corrupt_image": 10}
    assert len(found.history) == SLOTS
    assert (found.history[-2].done, found.history[-2].failed) == (6, 2)
    assert (found.history[-7].done, found.history[-7].failed) == (3, 1)
    assert found.history[-1].done == 0
    assert (found.history[-1].at - found.history[0].at).total_seconds() == (SLOTS - 1) * SLOT_S


def test_what_comes_back_and_what_is_refused_is_counted() -> None:
    found = summarize(
        report((MESSAGES_RETRIED, ("storage_unavailable",), 4), (LEASES_LOST, (), 2)),
        report(
            (MESSAGES_RETRIED, ("replica_lost",), 9),
            (HTTP_REFUSALS, ("overloaded", "http.max_concurrent", "shop"), 3),
            (HTTP_REFUSALS, ("overloaded", "ray_serve", ""), 2),
            (DEAD_LETTERS, (), 1),
        ),
    )
    assert found.retries_by_code == {"replica_lost": 9, "storage_unavailable": 4}
    assert found.refusals_by_code == {"overloaded": 5}
    assert (found.dead_letters, found.leases_lost) == (1, 2)


def test_a_consumer_that_has_not_recorded_yet_does_not_lower_what_runs() -> None:
    found = summarize(
        report((MESSAGES_IN_FLIGHT, (), 30), before_s=0),
        report((MESSAGES_IN_FLIGHT, (), 34), before_s=10),
        # It ended half a minute ago.
        report((MESSAGES_IN_FLIGHT, (), 500), before_s=30),
    )
    assert [each.in_flight for each in found.history[-5:]] == [None, 500, 500, 34, 64]


def test_an_ended_replica_counts_for_what_it_did_and_not_for_now() -> None:
    waiting, held = (QUEUE_MESSAGES, ("visible",)), (QUEUE_MESSAGES, ("not_visible",))
    ended = report(images(900), (*waiting, 5000), (*held, 64), before_s=90)
    found = summarize(ended, report(images(60), (*waiting, 100), (*held, 20)))
    assert found.outcomes == {"done": 960}
    assert found.images_per_s == 1
    assert found.backlog is not None
    assert (found.backlog.waiting, found.backlog.drained_in_s) == (100, 120)


def test_failures_of_a_quarter_of_an_hour_need_attention() -> None:
    failing = images(30, code="no_subject")
    [said] = summarize(report(images(70), failing)).attention
    assert said.startswith("30% of the images by the queue have failed with no_subject")
    assert summarize(report(images(70), failing, before_s=1000)).attention == []


def test_the_present_slot_does_not_lower_the_rate() -> None:
    assert summarize(report(images(600), before_s=0)).images_per_s == 0


def test_the_backlog_is_the_largest_that_a_replica_read() -> None:
    waiting, held = (QUEUE_MESSAGES, ("visible",)), (QUEUE_MESSAGES, ("not_visible",))
    found = summarize(
        report((*waiting, 900), (*held, 100), (OLDEST_RECEIVED_SECONDS, (), 12), images(120)),
        report((*waiting, 880), (*held, 90), (OLDEST_RECEIVED_SECONDS, (), 40)),
        report((MESSAGES_IN_FLIGHT, (), 30)),
        report((MESSAGES_IN_FLIGHT, (), 34), images(120, way_in="http")),
    )
    assert found.backlog is not None
    assert found.backlog.model_dump() == {
        "waiting": 900,
        "in_flight": 100,
        "oldest_s": 40,
        # Requests over HTTP drain no queue.
        "drained_in_s": 500,
        "policy_drained_in_s": None,
    }
    assert (found.history[-2].waiting, found.history[-2].in_flight) == (900, 64)
    # It is read every 15 s, and holds until then.
    assert found.history[-1].waiting == 900
    assert found.history[0].waiting is None


def test_the_policy_says_how_long_its_slowest_deployment_takes() -> None:
    waiting, held = (QUEUE_MESSAGES, ("visible",)), (QUEUE_MESSAGES, ("not_visible",))
    pipeline, model = (DRAIN_SECONDS, ("CutoutPipeline",)), (DRAIN_SECONDS, ("Segmenter-folio",))
    found = summarize(
        report((*waiting, 5), (*held, 0)),
        report((*pipeline, 900), (*pipeline, 120), (*model, 240.04)),
    ).backlog
    assert found is not None
    # The last value of each counts, and nothing was processed in the last minute.
    assert (found.policy_drained_in_s, found.drained_in_s) == (240, None)
    old = summarize(report((*waiting, 5), (*held, 0)), report((*model, 240), before_s=120)).backlog
    assert old is not None
    assert old.policy_drained_in_s is None


def test_a_queue_that_nobody_drains_has_no_end() -> None:
    waiting, held = (QUEUE_MESSAGES, ("visible",)), (QUEUE_MESSAGES, ("not_visible",))
    stuck = summarize(report((*waiting, 5), (*held, 0))).backlog
    empty = summarize(report((*waiting, 0), (*held, 0))).backlog
    assert stuck is not None
    assert empty is not None
    assert (stuck.drained_in_s, empty.drained_in_s) == (None, 0)
    # What was read two minutes ago is not the present backlog.
    assert summarize(report((*waiting, 5), (*held, 0), before_s=120)).backlog is None


def test_stages_of_all_pipelines_are_one() -> None:
    fast, slow = (STAGE_SECONDS, ("decode",), 0.02), (STAGE_SECONDS, ("decode",), 4.0)
    [stage] = summarize(report(*[fast] * 60), report(*[fast] * 30, *[slow] * 10)).stages
    assert (stage.name, stage.images) == ("decode", 100)
    assert 0.01 <= stage.median_s <= 0.025
    assert 2.5 <= stage.p95_s <= 5


def test_the_last_failures_of_all_replicas_are_sorted_and_bounded() -> None:
    def failures(start: int) -> tuple[RecentFailure, ...]:
        return tuple(
            RecentFailure(NOW_S - start - 2 * index, "queue", "no_subject", "m", f"s3://b/{start}")
            for index in range(MOST_FAILURES)
        )

    found = summarize(report(failures=failures(0)), report(failures=failures(1))).last_failures
    assert len(found) == MOST_FAILURES
    assert [each.subject for each in found[:3]] == ["s3://b/0", "s3://b/1", "s3://b/0"]
    assert found == sorted(found, key=lambda each: each.at, reverse=True)


def test_replicas_that_stop_are_not_wanted() -> None:
    found = describe_replicas("CutoutPipeline", {"RUNNING": 2, "STARTING": 1, "STOPPING": 3})
    assert (found.wanted, found.running, found.message) == (3, 2, "")
    assert found.states == {"RUNNING": 2, "STARTING": 1, "STOPPING": 3}
