"""A bucket that sends an event for every object in it: images, results and ledger alike."""

from __future__ import annotations

import asyncio
import io
from functools import cache

from PIL import Image

from serve_app.contracts.outcome import Outcome
from serve_app.models.folio.synthetic.photograph import draw_photograph
from tests.support.fault_rig import Rig

IMAGES = [f"j{n}" for n in range(20)]


@cache
def book() -> Image.Image:
    """Return an image that passes the checks of the default recipe."""
    return Image.fromarray(draw_photograph(7, width=480, height=360, kind="book").image)


def put(rig: Rig, *names: str, version: int = 0) -> None:
    """Store images, each of which is another object."""
    for name in names:
        file = io.BytesIO()
        book().save(file, "JPEG", quality=90, comment=f"{name} {version}".encode())
        rig.s3.put_object(Bucket=rig.bucket, Key=f"in/{name}.jpg", Body=file.getvalue())


def send_events(rig: Rig) -> None:
    """Let the bucket send an event to the queue for every object that is created."""
    found = rig.sqs.get_queue_attributes(QueueUrl=rig.url, AttributeNames=["QueueArn"])
    to_queue = {"QueueArn": found["Attributes"]["QueueArn"], "Events": ["s3:ObjectCreated:*"]}
    rig.s3.put_bucket_notification_configuration(
        Bucket=rig.bucket, NotificationConfiguration={"QueueConfigurations": [to_queue]}
    )


def keys(rig: Rig) -> set[str]:
    return {item.key for item in rig.store.list(rig.bucket, "")}


async def until_quiet(rig: Rig) -> None:
    """Return when no message is left, and none has come while the ledger could be written."""
    before: set[str] = set()
    while keys(rig) != before:
        before = keys(rig)
        await rig.until_settled()
        await asyncio.sleep(1)


def results(rig: Rig) -> list[str]:
    return [key for key in keys(rig) if key.endswith(".png")]


def live_outcomes(rig: Rig) -> list[Outcome]:
    runs = {key.split("/")[2] for key in keys(rig) if key.startswith("_foreedge/runs/live")}
    return [outcome for run_id in runs for outcome in rig.records(run_id)]


async def test_twenty_photographs_have_twenty_results_and_the_queue_is_quiet(rig: Rig) -> None:
    """The results lie among the images, as an empty prefix puts them."""
    send_events(rig)
    places = {"output_bucket": rig.bucket, "output_prefix": ""}
    async with rig.consumer(**places) as consumer:
        await asyncio.to_thread(put, rig, *IMAGES)
        await asyncio.to_thread(rig.s3.put_object, Bucket=rig.bucket, Key="in/folder/")
        await rig.until(lambda: len(results(rig)) == len(IMAGES))
        await until_quiet(rig)
        assert consumer.stats.done == len(IMAGES)
        assert consumer.stats.failed == {}
        assert consumer.stats.nothing_to_do >= len(IMAGES)
        received = consumer.stats.received
        await asyncio.sleep(2)
        assert consumer.stats.received == received
    assert len(results(rig)) == len(IMAGES)
    assert rig.dead_letters() == {}
    assert len(live_outcomes(rig)) == len(IMAGES)


async def test_results_of_a_run_with_another_prefix_are_no_images(rig: Rig) -> None:
    put(rig, "j")
    send_events(rig)
    recipe = {"checks": {"min_subject_px": 1}, "thumbnail": {}}
    async with rig.consumer(output_bucket=rig.bucket, output_prefix="elsewhere/") as consumer:
        rig.send_body(rig.message("j", recipe=recipe))
        await rig.until(lambda: "j" in rig.outcomes())
        await until_quiet(rig)
        assert consumer.stats.failed == {}
    made = [key for key in keys(rig) if key.startswith(f"cutouts/{rig.run_id}/in/j/")]
    assert len(made) == 2, "the result and its thumbnail"
    assert rig.dead_letters() == {}


async def test_an_image_that_is_deleted_or_replaced_before_its_event_is_read(rig: Rig) -> None:
    send_events(rig)
    put(rig, "kept", "gone", "replaced")
    put(rig, "replaced", version=1)
    rig.s3.delete_object(Bucket=rig.bucket, Key="in/gone.jpg")
    async with rig.consumer(output_bucket=rig.bucket, output_prefix="cutouts/") as consumer:
        await rig.until(lambda: len(results(rig)) == 2)
        await until_quiet(rig)
        assert consumer.stats.failed == {}
        assert consumer.stats.done == 3, "both events of the image that was replaced find it"
    assert rig.dead_letters() == {}
    named = sorted(item.source.key for item in live_outcomes(rig) if item.source)
    assert named == ["in/kept.jpg", "in/replaced.jpg", "in/replaced.jpg"]
