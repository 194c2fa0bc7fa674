"""The way of a job from the queue, without Ray: every kind of image gets its outcome and result."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from serve_app.config import AppConfig
from serve_app.contracts.job import Job, Output, Source
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.recipe import parse_recipe
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.pipeline.segmenters import LocalSegmenters
from serve_app.storage import open_store
from serve_app.storage.local import LocalStore
from serve_app.storage.protocol import ObjectStore
from tests.support import graphs
from tests.support.images import book, defects, jpeg, traits

UNDECODABLE = [defect for defect in defects() if defect.code != "no_subject"]


class LateStore(LocalStore):
    """A store whose objects appear just after they were looked up."""

    def head(self, bucket: str, key: str, version_id: str | None = None) -> None:
        return None


@pytest.fixture
def config(tmp_path: Path) -> AppConfig:
    """Return settings with a model whose mask is the red of an image, and a local store."""
    files = {"red": str(graphs.channel(tmp_path / "red.onnx", 0))}
    return AppConfig.load(
        {"models": ["red"], "model_files": files, "storage.local_root": str(tmp_path / "store")}
    )


@pytest.fixture
def store(config: AppConfig) -> ObjectStore:
    return open_store(config)


@pytest.fixture
def pipeline(config: AppConfig, store: ObjectStore) -> ImagePipeline:
    threads = imaging_threads(config.pipeline)
    return ImagePipeline(config, store, LocalSegmenters(config, threads), threads)


async def processed(
    pipeline: ImagePipeline, store: ObjectStore, name: str, data: bytes, **recipe: object
) -> Outcome:
    store.put_if_absent("images", name, data, "application/octet-stream")
    source = Source(bucket="images", key=name)
    fields = {"checks": {"min_subject_px": 0}, **recipe}
    job = Job(
        source=source, output=Output(bucket="images", prefix="out"), recipe=parse_recipe(fields)
    )
    return await pipeline.process(job)


async def test_every_defect_is_a_permanent_failure_with_its_code(
    pipeline: ImagePipeline, store: ObjectStore
) -> None:
    for defect in UNDECODABLE:
        outcome = await processed(pipeline, store, defect.name, defect.data)
        assert (outcome.status, outcome.code) == ("failed", defect.code), defect.name
        assert outcome.retry == "permanent"


async def test_an_object_that_appears_while_it_is_looked_for_is_not_read_without_a_limit(
    tmp_path: Path, config: AppConfig
) -> None:
    """The second look is a GET, since only its answer has the reason."""
    limited = config.model_copy(
        update={"limits": config.limits.model_copy(update={"max_bytes": 100})}
    )
    threads = imaging_threads(limited.pipeline)
    store = LateStore(tmp_path / "late")
    pipeline = ImagePipeline(limited, store, LocalSegmenters(limited, threads), threads)
    small = await processed(pipeline, store, "small", b"x" * 100)
    assert (small.code, small.retry) == ("storage_unavailable", "transient")
    large = await processed(pipeline, store, "large", b"x" * 101)
    assert (large.code, large.retry) == ("image_too_large", "permanent")


async def test_every_trait_is_done(pipeline: ImagePipeline, store: ObjectStore) -> None:
    for trait in traits():
        outcome = await processed(
            pipeline, store, trait.name, trait.data, background="black", crop_to_subject=False
        )
        assert outcome.status == "done", (trait.name, outcome)
        assert outcome.output_key is not None
        result = Image.open(io.BytesIO(store.get("images", outcome.output_key)))
        assert result.size == trait.expected.shape[1::-1], trait.name


async def test_a_job_keeps_metadata_and_crops(pipeline: ImagePipeline, store: ObjectStore) -> None:
    pixels = np.zeros_like(book().image)
    pixels[100:200, 100:300] = 250
    exif = Image.Exif()
    exif[ExifTags.Base.Copyright] = "A library"
    data = jpeg(pixels, exif=exif, dpi=(600, 600))
    outcome = await processed(
        pipeline, store, "kept", data, keep_metadata=True, crop_to_subject=True
    )
    assert outcome.cutout is not None, outcome
    crop = outcome.cutout.crop
    assert crop is not None
    assert (crop.width, crop.height) == (outcome.cutout.width, outcome.cutout.height)
    assert crop.left < outcome.cutout.subject.left
    assert crop.right > outcome.cutout.subject.right
    assert outcome.output_key is not None
    result = Image.open(io.BytesIO(store.get("images", outcome.output_key)))
    assert result.getexif()[ExifTags.Base.Copyright] == "A library"
    assert result.info["dpi"] == pytest.approx((600, 600), abs=0.1)
    assert result.info["srgb"] == 0
    # Another recipe has another key.
    plain = await processed(pipeline, store, "kept", data)
    assert plain.output_key != outcome.output_key


async def test_a_result_without_its_thumbnail_is_made_again(
    pipeline: ImagePipeline, store: ObjectStore
) -> None:
    data = jpeg(book().image)
    first = await processed(pipeline, store, "book", data, thumbnail={})
    assert first.thumbnail_key is not None
    again = await processed(pipeline, store, "book", data, thumbnail={})
    assert (first.status, again.status) == ("done", "skipped_existing")
    small = store.get("images", first.thumbnail_key)
    store.delete("images", [first.thumbnail_key])
    repaired = await processed(pipeline, store, "book", data, thumbnail={})
    assert repaired.status == "done"
    assert store.get("images", first.thumbnail_key) == small
