"""The known faults of the old worker that rows and objects show, on its model and on ours.

Each scenario runs twice: its assertion must fail on the model of the old worker, with the text that
names the fault, and hold for ours. README.md says which test holds which fault.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from serve_app.contracts.job import CatalogJob
from serve_app.errors import NoSubject, StorageUnavailable
from tests.catalog.bench import in_run
from tests.catalog.collection import Image, photographs
from tests.catalog.old_worker import nothing, thumbnail_key
from tests.catalog.quick_bench import QuickBench
from tests.catalog.systems import Old, Ours, System

Scenario = Callable[[System], Awaitable[None]]
SCENARIOS: dict[int, tuple[str, Scenario]] = {}
"""What the assertion of each fault says of the old worker, and the scenario, by number."""


def fault(number: int, shows: str) -> Callable[[Scenario], Scenario]:
    """Enter the scenario of a fault."""

    def enter(scenario: Scenario) -> Scenario:
        SCENARIOS[number] = (shows, scenario)
        return scenario

    return enter


def book_of(system: System, *images: Image) -> tuple[int, list[int]]:
    """Add a book whose images are in the bucket."""
    book, ids = system.collection.add_book(*images)
    system.bench.upload(book)
    return book, ids


def cutouts(system: System, book: int) -> list[dict[str, Any]]:
    return [row for row in system.collection.images(book) if row["is_background_processed"]]


def state(system: System, job: CatalogJob) -> str:
    return str(system.collection.job(job)["status"])


@fault(1, "the job of the dead worker is never done")
async def dead_worker(system: System) -> None:
    book, [image] = book_of(system, *photographs(1))
    job = system.collection.queue(book, image)
    await system.die(job)
    assert state(system, job) == "processing"
    await system.serve(job)
    assert state(system, job) == "completed", "the job of the dead worker is never done"


@fault(2, "one job made 2 cut-outs")
async def two_deliveries_at_once(system: System) -> None:
    book, [image] = book_of(system, *photographs(1))
    job = system.collection.queue(book, image)
    if isinstance(system, Old):
        # Both deliveries have read the row before either writes to it.
        with psycopg.connect(system.collection.url) as holder:
            holder.execute("LOCK TABLE image_processing_jobs IN ROW EXCLUSIVE MODE")
            holder.execute("SELECT 1 FROM image_processing_jobs FOR UPDATE")
            release = threading.Timer(0.3, holder.rollback)
            release.start()
            await system.serve(job, job)
            release.join()
    else:
        both = threading.Barrier(2)
        await system.serve(job, job, cut=lambda _: both.wait(10))
    made = len(cutouts(system, book))
    assert made == 1, f"one job made {made} cut-outs"


@fault(3, "2 primaries")
async def two_jobs_of_a_book_that_end_at_once(system: System) -> None:
    book, images = book_of(system, *photographs(3))
    jobs = [system.collection.queue(book, image) for image in images[:2]]
    both = threading.Barrier(2)
    if isinstance(system, Old):
        workers = [system.worker(seen=lambda: both.wait(10)) for _ in jobs]
        threads = [
            threading.Thread(target=worker.deliver, args=[job])
            for worker, job in zip(workers, jobs, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:
        await system.serve(*jobs, cut=lambda _: both.wait(10))
    rows = system.collection.images(book)
    primaries = sum(row["is_primary"] for row in rows)
    assert primaries == 1, f"{primaries} primaries"
    assert [row["display_order"] for row in rows] == list(range(len(rows)))


@fault(4, "2 cut-outs of one image")
async def two_jobs_that_choose_one_image(system: System) -> None:
    book, [cover, other] = book_of(system, Image("{book}_a.jpg", "cover"), Image("{book}_b.jpg"))
    jobs = [system.collection.queue(book, image) for image in (cover, other)]
    for job in jobs:
        await system.serve(job)
    made = [row["id"] for row in cutouts(system, book)]
    assert len(made) == 1, f"{len(made)} cut-outs of one image"
    assert {system.collection.job(job)["processed_image_id"] for job in jobs} == set(made)


@fault(5, "4 cut-outs after 4 drags")
async def a_user_drags_the_original_to_the_top(system: System) -> None:
    book, [image, _] = book_of(system, *photographs(2))
    for _ in range(4):
        await system.serve(system.collection.queue(book, image))
        system.collection.execute(
            "UPDATE book_images SET is_primary = (id = %s), display_order ="
            " CASE WHEN id = %s THEN 0 ELSE display_order + 1 END WHERE book_id = %s",
            *(image, image, book),
        )
    made = len(cutouts(system, book))
    assert made == 1, f"{made} cut-outs after 4 drags"


@fault(6, "objects are left")
async def a_worker_that_dies_after_the_upload(system: System) -> None:
    book, [image] = book_of(system, *photographs(1))
    job = system.collection.queue(book, image)
    await system.die(job, after_upload=True)
    # As after a restart by hand: the old worker would not touch the job otherwise.
    system.collection.execute("UPDATE image_processing_jobs SET status = 'pending'")
    await system.serve(job)
    named = {row["s3_key"] for row in system.collection.images(book)}
    wanted = {f"books/{key}" for key in named} | {thumbnail_key(key) for key in named}
    left = system.bench.objects() - wanted
    assert not left, f"objects are left: {left}"


@fault(7, "a passing failure is written to the row")
async def a_failure_that_passes(system: System) -> None:
    book, [image] = book_of(system, *photographs(1))
    job = system.collection.queue(book, image)
    seen: list[dict[str, Any]] = []

    # The old worker tries three times within one delivery.
    passes_after = 3 if isinstance(system, Old) else 2

    def cut(_: str) -> None:
        seen.append(system.collection.job(job))
        if len(seen) <= passes_after:
            raise StorageUnavailable("slow down")

    await system.serve(job, cut=cut)
    last = system.collection.job(job)
    assert last["status"] == "completed"
    reasons = {row["failure_reason"] for row in [*seen, last]}
    assert reasons == {None}, "a passing failure is written to the row"
    assert {row["completed_at"] for row in seen} == {None}


@fault(8, "processed in 3 deliveries")
async def a_failure_that_stays(system: System) -> None:
    book, [image] = book_of(system, *photographs(1))
    job = system.collection.queue(book, image)
    deliveries: set[object] = set()

    def cut(_: str) -> None:
        deliveries.add(system.collection.job(job)["updated_at"])
        raise NoSubject("no subject of 100 pixels")

    await system.serve(job, cut=cut)
    assert (state(system, job), system.dead) == ("failed", [job])
    assert len(deliveries) == 1, f"processed in {len(deliveries)} deliveries"


@fault(10, "the reason says nothing")
async def the_reason_of_a_failure(system: System) -> None:
    book, [image] = book_of(system, *photographs(1))
    job = system.collection.queue(book, image)

    def cut(model: str) -> None:
        raise NoSubject(f"{model} found no subject")

    await system.serve(job, cut=cut)
    reason = system.collection.job(job)["failure_reason"]
    assert "found no subject" in reason, f"the reason says nothing: {reason}"
    assert reason.startswith("no_subject: ")


@fault(11, "the late row cost 2 receives")
async def a_message_before_its_row(system: System) -> None:
    book, [image] = book_of(system, *photographs(1))
    job = in_run(system.collection.queue(book, image))
    with psycopg.connect(system.collection.url) as api:
        api.execute("DELETE FROM image_processing_jobs")
        api.commit()
        api.execute(
            "INSERT INTO image_processing_jobs (id, book_id, source_image_id) VALUES (%s, %s, %s)",
            [job.job_id, book, image],
        )
        if isinstance(system, Old):
            system.hidden = api.commit
            await system.serve(job)
        else:
            commit = threading.Timer(0.4, api.commit)
            commit.start()
            await system.serve(job)
            commit.join()
    assert state(system, job) == "completed"
    receives = system.receives_of(job)
    assert receives == 1, f"the late row cost {receives} receives"


@fault(12, "another book was changed")
async def a_message_that_names_another_book(system: System) -> None:
    book, [image] = book_of(system, *photographs(1))
    other, _ = book_of(system, *photographs(2))
    job = system.collection.queue(book, image)
    before = system.collection.images(other)
    await system.serve(job.model_copy(update={"book_id": other}))
    assert system.collection.images(other) == before, "another book was changed"
    assert state(system, job) == "pending"


@fault(13, "the reason is that of a library|a deleted book is a dead letter")
async def what_users_delete_meanwhile(system: System) -> None:
    book, [image, _] = book_of(system, *photographs(2))
    job = system.collection.queue(book, image)
    drop = "DELETE FROM book_images WHERE id = %s"
    await system.serve(job, cut=lambda _: system.collection.execute(drop, image))
    reason = system.collection.job(job)["failure_reason"]
    assert reason.startswith("source_deleted: "), f"the reason is that of a library: {reason}"
    book, [image] = book_of(system, *photographs(1))
    job = system.collection.queue(book, image)
    system.dead.clear()
    drop = "DELETE FROM books WHERE id = %s"
    await system.serve(job, cut=lambda _: system.collection.execute(drop, book))
    assert system.dead == [], "a deleted book is a dead letter"


@fault(14, "the image depends on where its row is stored")
async def equals_are_chosen_in_their_order(system: System) -> None:
    # The second one was stored first.
    second, first = (
        Image("{book}_b.jpg", "cover", order=1),
        Image("{book}_a.jpg", "cover", order=0),
    )
    book, [_, wanted] = book_of(system, second, first)
    await system.serve(system.collection.queue(book, None))
    last = system.collection.images(book)[-1]["id"]
    assert last == wanted, "the image depends on where its row is stored"


def thumbnails_are_missing(system: System) -> list[str]:
    """Return the ``s3_key`` of each row without a thumbnail that the application finds."""
    objects = system.bench.objects()
    rows = system.collection.rows("SELECT s3_key FROM book_images")
    return [row["s3_key"] for row in rows if f"books/thumb_{row['s3_key']}" not in objects]


@fault(22, "no thumbnail is found")
async def keys_of_thumbnails(system: System) -> None:
    if isinstance(system, Old):
        # The version that named a JPEG as one.
        system.version["thumbnail"] = lambda key: thumbnail_key(key).replace(".png", ".jpg")
    for key in ("{book}/image_01.webp", "{book}_0a.png", "{book}_0b.jpeg"):
        book, [image] = book_of(system, Image(key))
        await system.serve(system.collection.queue(book, image))
    missing = thumbnails_are_missing(system)
    assert missing == [], f"no thumbnail is found: {missing}"
    assert [key for key in system.bench.objects() if key.endswith(".jpg")] == []


@fault(23, "no thumbnail is found")
async def the_first_version(system: System) -> None:
    if isinstance(system, Old):
        system.version["thumbnail"] = nothing
    book, [image] = book_of(system, *photographs(1))
    await system.serve(system.collection.queue(book, image))
    missing = thumbnails_are_missing(system)
    assert missing == [], f"no thumbnail is found: {missing}"


@pytest.mark.parametrize("number", SCENARIOS)
async def test_ours_does_not_have_the_fault(number: int, quick_bench: QuickBench) -> None:
    await SCENARIOS[number][1](Ours(quick_bench))


@pytest.mark.parametrize("number", SCENARIOS)
async def test_the_old_worker_has_the_fault(number: int, quick_bench: QuickBench) -> None:
    shows, scenario = SCENARIOS[number]
    with pytest.raises(AssertionError, match=shows):
        await scenario(Old(quick_bench))
