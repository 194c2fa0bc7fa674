"""Verification: jobs without an outcome, outcomes without an object, and few calls to find out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.runs.job_list import JobList, Sent
from ingest.runs.manifest import RunManifest
from ingest.runs.verify import Verification, VerificationResult, jobs_without_object
from ingest.sources.base import Entry
from serve_app.contracts.job import Source
from serve_app.contracts.outcome import Outcome
from serve_app.storage.local import LocalStore
from tests.support.run_records import outcome, run_folder, run_manifest, write_results


class CountingStore(LocalStore):
    """A store that counts its listings, and the keys that they yield."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.listings = 0
        self.listed = 0

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[str]:
        self.listings += 1
        for key in super().keys(bucket, prefix, after):
            self.listed += 1
            yield key


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path)


def done(job_id: str, thumbnail: bool = False) -> Outcome:
    small = f"out/{job_id}_thumb.jpg" if thumbnail else None
    key = f"out/{job_id}.png"
    return outcome("done", 1, job_id, output_bucket="b", output_key=key, thumbnail_key=small)


def run(store: LocalStore, jobs: list[str]) -> RunManifest:
    """Store the job list of a run, and return its manifest."""
    found = JobList(run_folder(store))
    found.write(0, [Entry("b", f"in/{job}.jpg", None, None, job) for job in jobs])
    found.write_sent(Sent(jobs=len(jobs), complete=True))
    return run_manifest(len(jobs))


def put(store: LocalStore, *names: str) -> None:
    for name in names:
        store.put("b", f"out/{name}", b"x", "image/png")


def verify(
    store: LocalStore, manifest: RunManifest
) -> tuple[VerificationResult, list[tuple[str, str]]]:
    with Verification(run_folder(store), manifest) as verification:
        found = verification.run()
        missing = [
            (str(item.entry.job_id), item.problem) for item in verification.incomplete_jobs()
        ]
    return found, missing


def test_a_sound_run(store: CountingStore) -> None:
    manifest = run(store, ["a", "b", "c"])
    existed = outcome("skipped_existing", 1, "b", output_bucket="b", output_key="out/b.png")
    write_results(
        store, "1", done("a", thumbnail=True), existed, outcome("failed", 1, "c"), done("a")
    )
    put(store, "a.png", "a_thumb.jpg", "b.png", "of-another-run.png")

    found, missing = verify(store, manifest)

    assert found.sound
    assert missing == []
    assert (found.jobs, found.ended, found.failed, found.duplicates) == (3, 3, 1, 1)
    assert (found.objects, found.unlisted) == (3, 0)


def test_everything_that_can_be_missing(store: CountingStore) -> None:
    manifest = run(store, ["a", "b", "c", "d"])
    write_results(store, "1", done("a"), done("b", thumbnail=True), done("d"), done("stranger"))
    put(store, "a.png", "b.png", "stranger.png")

    found, missing = verify(store, manifest)

    assert not found.sound
    assert missing == [("b", "no_object"), ("c", "no_outcome"), ("d", "no_object")]
    assert (found.without_outcome, found.without_object, found.unlisted) == (1, 2, 1)


def test_a_list_that_is_not_complete_is_not_sound(store: CountingStore) -> None:
    manifest = run(store, ["a"]).model_copy(update={"complete": False})
    write_results(store, "1", done("a"))
    put(store, "a.png")

    assert not verify(store, manifest)[0].sound


def test_a_run_without_a_list_reports_missing_objects(store: CountingStore) -> None:
    source = Source(bucket="b", key="in/a.jpg", etag="e")
    lost = done("a").model_copy(update={"source": source})
    write_results(store, "1", lost, lost, done("b"), outcome("failed", 1, "c"))
    put(store, "b.png")

    found, missing = verify(store, run_manifest(4))

    assert not found.sound
    assert not found.has_list
    assert missing == [("a", "no_object")]
    assert (found.jobs, found.ended, found.failed) == (4, 3, 1)
    assert (found.without_object, found.without_outcome) == (1, 1)


def test_a_sound_run_without_a_list(store: CountingStore) -> None:
    write_results(store, "1", done("a"))
    put(store, "a.png")
    assert verify(store, run_manifest(1))[0].sound
    with Verification(run_folder(store), None) as verification:
        assert verification.run().sound


def test_a_few_objects_among_very_many_are_not_found_by_listing_all(store: CountingStore) -> None:
    put(store, *(f"{number:05d}.png" for number in range(2_600)))
    wanted = [(f"out/{n:05d}.png", str(n)) for n in (0, 1, 1_200, 2_599)]

    assert list(jobs_without_object(store, "b", "out/", [*wanted, ("out/x.png", "gone")])) == [
        "gone"
    ]

    assert store.listings <= 4
    assert store.listed < 2_100


def test_nothing_wanted_and_nothing_there(store: CountingStore) -> None:
    assert list(jobs_without_object(store, "b", "out/", [])) == []
    assert list(jobs_without_object(store, "b", "out/", [("out/a", "j")])) == ["j"]
