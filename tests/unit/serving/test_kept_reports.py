"""What a process stores of its report outlives it, for as long as it is remembered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve_app.serving.kept_reports import decode_report, encode_report
from serve_app.serving.metrics import DRAIN_SECONDS, IMAGES, STAGE_SECONDS
from serve_app.serving.recent_metrics import (
    DISTRIBUTION_SLOTS,
    SLOT_S,
    SLOTS,
    Note,
    RecentFailure,
    RecentMetrics,
    RecentReport,
    last_slot,
)

NOW_S = 1_000_000.0
NOTES: list[Note] = [
    (IMAGES, ("queue", "done", "", "folio"), 2),
    (DRAIN_SECONDS, ("CutoutPipeline",), 40.5),
    (STAGE_SECONDS, ("decode",), 0.02),
]
FAILURE = RecentFailure(NOW_S, "queue", "no_subject", "no subject", "s3://b/ä.jpg", "j1", "run-1")


def recorded(notes: list[Note]) -> RecentMetrics:
    recent = RecentMetrics(lambda: NOW_S)
    recent.note(notes)
    return recent


@given(st.lists(st.sampled_from(NOTES), max_size=9))
def test_what_is_read_is_what_was_stored(notes: list[Note]) -> None:
    report = RecentReport(recorded(notes).values(), (FAILURE,))
    assert decode_report(encode_report(report), NOW_S) == report


def test_what_is_not_remembered_any_more_is_not_read() -> None:
    stored = encode_report(RecentReport(recorded(NOTES).values()))
    later = decode_report(stored, NOW_S + DISTRIBUTION_SLOTS * SLOT_S).values
    assert later.distributions == {}
    assert set(later.counts) == {(IMAGES.name, ("queue", "done", "", "folio"))}
    assert last_slot(later) == NOW_S // SLOT_S
    gone = decode_report(stored, NOW_S + SLOTS * SLOT_S).values
    assert last_slot(gone) is None
