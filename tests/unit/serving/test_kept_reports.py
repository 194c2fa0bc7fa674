"""What a process stores of its report outlives it, for as long as it is remembered."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.http.operations import summarize_operations
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
    RecentValues,
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


def values_of(stored: bytes, now_s: float) -> RecentValues:
    report = decode_report(stored, now_s)
    assert report is not None
    return report.values


@given(st.lists(st.sampled_from(NOTES), max_size=9))
def test_what_is_read_is_what_was_stored(notes: list[Note]) -> None:
    report = RecentReport(recorded(notes).values(), (FAILURE,))
    assert decode_report(encode_report(report), NOW_S) == report


def test_what_is_not_remembered_any_more_is_not_read() -> None:
    stored = encode_report(RecentReport(recorded(NOTES).values()))
    later = values_of(stored, NOW_S + DISTRIBUTION_SLOTS * SLOT_S)
    assert later.distributions == {}
    assert set(later.counts) == {(IMAGES.name, ("queue", "done", "", "folio"))}
    assert last_slot(later) == NOW_S // SLOT_S
    gone = values_of(stored, NOW_S + SLOTS * SLOT_S)
    assert last_slot(gone) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("gauges"),
        lambda content: content["failures"][0].update(severity="high"),
        lambda content: content["failures"][0].pop("code"),
        lambda content: content.update(counts=[["foreedge_images", 5]]),
    ],
)
def test_the_report_of_another_version_is_left_out(change: Callable[[Any], object]) -> None:
    report = RecentReport(recorded(NOTES).values(), (FAILURE,))
    content = orjson.loads(zlib.decompress(encode_report(report)))
    change(content)
    assert decode_report(zlib.compress(orjson.dumps(content)), NOW_S) is None
    assert decode_report(b"another format", NOW_S) is None


@pytest.mark.parametrize(
    "series",
    [
        ["counts", "foreedge_images", ["queue", "done", ""], 1],
        ["counts", "foreedge_images_of_tomorrow", ["queue"], 1],
        ["counts", DRAIN_SECONDS.name, ["CutoutPipeline"], 1],
        ["gauges", DRAIN_SECONDS.name, [], 1],
        ["distributions", STAGE_SECONDS.name, ["decode"], [1] * (len(STAGE_SECONDS.buckets) + 2)],
        ["distributions", STAGE_SECONDS.name, ["decode", "folio"], [1]],
    ],
    ids=["fewer labels", "unknown", "another kind", "no label", "more buckets", "more labels"],
)
def test_a_metric_of_another_version_is_left_out_and_the_others_count(series: list[Any]) -> None:
    content = orjson.loads(zlib.decompress(encode_report(RecentReport(recorded(NOTES).values()))))
    kind, name, labels, value = series
    content[kind] = [each for each in content[kind] if each[0] != name]
    others = {each[0] for some in ("counts", "gauges", "distributions") for each in content[some]}
    content[kind].append([name, labels, {int(NOW_S) // SLOT_S: value}])
    read = decode_report(
        zlib.compress(orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)), NOW_S
    )
    assert read is not None
    of_this_version = RecentReport(recorded(NOTES).values())
    found = summarize_operations([read, of_this_version], [], None, NOW_S)
    assert sum(found.outcomes.values()) == (2 + 2 * (IMAGES.name in others))
    every = (read.values.counts, read.values.gauges, read.values.distributions)
    assert {name for some in every for name, _ in some} == others
