"""The report of a run: its numbers, its two files, and the page."""

from __future__ import annotations

import io
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from ingest.runs.cancellation import cancel_run
from ingest.runs.job_list import JobList, Sent
from ingest.runs.manifest import write_manifest
from ingest.runs.report import RunReport, read_report
from ingest.runs.report_page import render_report_page, write_report
from ingest.runs.status import RunMonitor
from serve_app.config import AppConfig, ImageLimits
from serve_app.contracts.job import Source
from serve_app.contracts.outcome import Box, Cutout, Outcome
from serve_app.errors import ForeedgeError, SourceNotFound
from serve_app.storage.local import LocalStore
from tests.support.fault_effects import refuse
from tests.support.fault_proxy import Proxy
from tests.support.run_records import START, record_outcomes, run_folder, run_manifest
from tests.support.stand_in_s3 import store_behind

LIMITS = ImageLimits()


def done(name: str, confidence: float = 0.95, after_s: float = 10, **stages: float) -> Outcome:
    cutout = Cutout(
        model="folio",
        width=64,
        height=48,
        subject=Box(left=8, top=8, right=56, bottom=40),
        mask_confidence=confidence,
        stages_ms=stages or {"decode": 10.0, "infer": 30.0},
    )
    return Outcome(
        job_id=name,
        run_id="r1",
        status="done",
        source=Source(bucket="b", key=f"in/{name}.jpg"),
        output_bucket="b",
        output_key=f"cutouts/{name}.png",
        output_bytes=1_234,
        cutout=cutout,
        finished_at=START + timedelta(seconds=after_s),
    )


def failure(name: str, code: str = "no_subject", after_s: float = 5) -> Outcome:
    return Outcome(
        job_id=name,
        run_id="r1",
        status="failed",
        source=Source(bucket="b", key=f"in/{name}.jpg"),
        code=code,
        message="the model found nothing to keep",
        retry="permanent",
        finished_at=START + timedelta(seconds=after_s),
    )


def draw(store: LocalStore, name: str) -> None:
    """Store an image and its cut-out."""
    photograph = Image.new("RGB", (640, 480), "#7a8aa0")
    cutout = Image.new("RGBA", (640, 480), (0, 0, 0, 0))
    for image in (photograph, cutout):
        ImageDraw.Draw(image).rounded_rectangle((80, 80, 560, 400), 20, fill="#8c2f2a")
    for image, key, kind in (
        (photograph, f"in/{name}.jpg", "JPEG"),
        (cutout, f"cutouts/{name}.png", "PNG"),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        store.put("b", key, buffer.getvalue(), "image/x")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def summarize(store: LocalStore, jobs: int, *outcomes: Outcome) -> RunReport:
    record_outcomes(store, *outcomes)
    write_manifest(run_folder(store), run_manifest(jobs))
    return read_report(run_folder(store))


def test_summary_counts_each_job_once(store: LocalStore) -> None:
    outcomes = [done("a"), done("a", after_s=11), failure("b"), failure("c", "corrupt_image")]
    existed = Outcome(job_id="d", run_id="r1", status="skipped_existing", finished_at=START)

    with summarize(store, 6, *outcomes, existed) as report:
        assert report.status.counts == {
            "done": 1,
            "skipped_existing": 1,
            "failed": 2,
            "missing": 2,
        }
        assert report.status.codes == {"no_subject": 1, "corrupt_image": 1}
        assert report.status.wall_s == 11
        assert report.status.images_per_s == pytest.approx(4 / 11)
        assert len(list(report.jobs())) == 4


def test_a_run_without_results_has_a_report(store: LocalStore) -> None:
    with summarize(store, 3) as report:
        data = report.summary()

    assert data["counts"]["missing"] == 3
    assert data["images_per_s"] == 0
    assert data["stages_ms"] == {}


def test_the_state_of_a_run_is_that_of_its_status(store: LocalStore) -> None:
    write_manifest(run_folder(store), run_manifest(3))
    JobList(run_folder(store)).write_sent(Sent(jobs=1))
    for cancelled, state in ((False, "sending"), (True, "cancelled")):
        if cancelled:
            cancel_run(run_folder(store))
        with read_report(run_folder(store)) as report:
            data = report.summary()
        assert (data["state"], data["unsent"], data["cancelled"]) == (state, 2, cancelled)
        assert (
            data.items()
            >= RunMonitor(run_folder(store), run_manifest(3)).update().as_dict().items()
        )


def test_more_results_than_jobs_are_not_a_negative_number_missing(store: LocalStore) -> None:
    with summarize(store, 1, done("a"), done("b")) as report:
        assert report.status.missing == 0


def test_failures_come_first_then_the_least_confident_masks(store: LocalStore) -> None:
    outcomes = [done("a", 0.9), done("b", 0.3), failure("c"), done("d", 0.5)]
    with summarize(store, 4, *outcomes) as report:
        assert [item["job_id"] for item in report.jobs()] == ["c", "b", "d", "a"]
        assert [item["job_id"] for item in report.doubtful(9)] == ["b", "d"]
        assert [item["job_id"] for item in report.sample(9)] == ["a"]


def test_rare_failures_are_shown_alongside_frequent_ones(store: LocalStore) -> None:
    failures = [failure(f"{n:02}") for n in range(20)] + [failure("x", "source_not_found")]
    with summarize(store, 21, *failures) as report:
        shown = report.failures(5)

    assert [item["code"] for item in shown] == ["no_subject"] * 4 + ["source_not_found"]


def test_a_sample_is_spread_over_the_run(store: LocalStore) -> None:
    with summarize(store, 100, *(done(f"{n:03}") for n in range(100))) as report:
        names = [int(item["job_id"]) for item in report.sample(10)]

    assert names == list(range(9, 100, 10))


def test_stages_keep_their_order_and_are_medians(store: LocalStore) -> None:
    outcomes = [done("a", infer=1.0, encode=2.0), done("b", infer=9.0), done("c", infer=4.0)]
    with summarize(store, 3, *outcomes) as report:
        assert list(report.stages_ms.items()) == [("infer", 4.0), ("encode", 2.0)]


def test_the_histogram_has_a_place_for_both_ends(store: LocalStore) -> None:
    with summarize(store, 3, done("a", 0.0), done("b", 1.0), failure("c")) as report:
        bins = report.histogram

    assert (bins[0], bins[-1], sum(bins), len(bins)) == (1, 1, 2, 20)


def test_both_files_are_written_from_the_ledger(store: LocalStore, tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(store, name)
    write_manifest(run_folder(store), run_manifest(3))
    record_outcomes(store, done("a"), done("b", 0.4), failure("c"))

    with read_report(run_folder(store)) as report:
        page = write_report(report, store, AppConfig.load({}), tmp_path / "o", sample_size=10)

    data = json.loads((tmp_path / "o" / "report.json").read_bytes())
    assert data["counts"] == {"done": 2, "skipped_existing": 0, "failed": 1, "missing": 0}
    assert [job["status"] for job in data["jobs"]] == ["failed", "done", "done"]
    assert data["jobs"][1]["source"] == "s3://b/in/b.jpg"
    assert data["jobs"][1]["mask_confidence"] == 0.4
    assert data["jobs"][1]["output_key"] == "cutouts/b.png"
    html = page.read_text()
    assert html.count("data:image/webp") == 4
    assert html.index("in/b.jpg") < html.index("in/a.jpg")


def test_images_that_the_store_denies_are_reported(store: LocalStore) -> None:
    refused: list[ForeedgeError] = []
    with Proxy("http://127.0.0.1:9") as proxy, summarize(store, 2, done("a"), failure("b")) as run:
        proxy.add("s3:*", refuse(403, "AccessDenied"), name="*/in/*")
        proxy.add("s3:*", refuse(404, "NoSuchKey"))
        denying = store_behind(proxy)
        page = render_report_page(run, denying, LIMITS, 4, on_refused=refused.append)

    assert "data:image/webp" not in page
    # The image of each job. The cut-out does not exist, which is no denial.
    assert [error.code for error in refused] == ["source_forbidden"] * 2


def test_the_json_of_a_run_without_results(store: LocalStore, tmp_path: Path) -> None:
    with summarize(store, 1) as report:
        write_report(report, store, AppConfig.load({}), tmp_path / "o", sample_size=10)

    data = json.loads((tmp_path / "o" / "report.json").read_bytes())
    assert (data["jobs"], data["jobs_expected"]) == ([], 1)


def test_the_page_needs_no_network(store: LocalStore) -> None:
    draw(store, "a")

    with summarize(store, 1, done("a")) as report:
        html = render_report_page(report, store, LIMITS, sample_size=4)

    assert not re.search(r"(?:src|href)=[\"'](?!data:)", html)
    assert "http" not in html.replace("http-equiv", "")


def test_untrusted_names_are_escaped(store: LocalStore) -> None:
    nasty = "<script>alert(1)</script>\"' onload=x"
    record_outcomes(store, failure(nasty), done(nasty + "2"), failure("x", code=nasty))
    write_manifest(run_folder(store), run_manifest(3).model_copy(update={"description": nasty}))
    with read_report(run_folder(store)) as report:
        html = render_report_page(report, store, LIMITS, sample_size=4)

    assert "<script>" not in html
    assert "\"' onload=x" not in html


def test_the_sample_has_the_size_that_was_chosen(store: LocalStore) -> None:
    outcomes = [done(f"{i}", 0.9 + i / 100) for i in range(5)]
    for outcome in [*outcomes, done("doubtful", 0.2)]:
        draw(store, outcome.job_id)
    with summarize(store, 6, *outcomes, done("doubtful", 0.2)) as report:
        page = render_report_page(report, store, LIMITS, sample_size=2)
        assert page.count("data:image/webp") == 2 * 3
        assert "2 of 5" in page
        assert (
            "data:"
            not in render_report_page(report, store, LIMITS, sample_size=0).split("</style>")[1]
        )


def test_an_unknown_run_is_not_found(store: LocalStore) -> None:
    with pytest.raises(SourceNotFound, match="no run 'r9'"):
        read_report(run_folder(store, "r9"))
