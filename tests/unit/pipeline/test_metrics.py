"""What the pipeline records of its images."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.config import AppConfig
from serve_app.contracts.job import Job, Output, Source
from serve_app.contracts.recipe import parse_recipe
from serve_app.errors import CorruptImage
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.pipeline.segmenters import LocalSegmenters
from serve_app.serving.metrics import (
    DECODED_BYTES,
    DECODED_LIMIT_BYTES,
    IMAGE_BYTES,
    MASK_CONFIDENCE,
    STAGE_SECONDS,
)
from serve_app.storage import open_store
from tests.support import graphs
from tests.support.images import book, jpeg
from tests.support.recorded_metrics import RecordedMetrics

BOOK = jpeg(book().image)
CPU_STAGES = {"decode", "resize", "segment", "mask", "compose", "encode"}


class Bench:
    """A pipeline with a small model and a local store, whose metrics can be read."""

    def __init__(self, folder: Path) -> None:
        model = graphs.brightness(folder / "bright.onnx")
        settings = {"models": ["bright"], "model_files": {"bright": str(model)}}
        config = AppConfig.load({**settings, "storage.local_root": str(folder)})
        threads = imaging_threads(config.pipeline)
        models = LocalSegmenters(config, threads)
        self.metrics = RecordedMetrics()
        self.folder = folder
        self.pipeline = ImagePipeline(config, open_store(config), models, threads, self.metrics)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def stages(metrics: RecordedMetrics) -> dict[str, int]:
    return {stage: len(seconds) for (stage,), seconds in metrics.observed(STAGE_SECONDS).items()}


async def test_a_request_is_recorded_with_its_stages_bytes_and_confidence(bench: Bench) -> None:
    rendered = await bench.pipeline.cut_out(BOOK, parse_recipe({"checks": {"min_subject_px": 1}}))
    assert stages(bench.metrics) == dict.fromkeys(CPU_STAGES, 1)
    assert bench.metrics.counts(IMAGE_BYTES) == {
        ("http", "in"): len(BOOK),
        ("http", "out"): len(rendered.data),
    }
    confidence = rendered.cutout.mask_confidence
    assert bench.metrics.observed(MASK_CONFIDENCE) == {("bright",): [confidence]}
    seconds = bench.metrics.observed(STAGE_SECONDS)[("decode",)]
    assert rendered.cutout.stages_ms["decode"] == pytest.approx(seconds[0] * 1000, abs=0.01)


async def test_a_job_is_recorded_with_its_transfers(bench: Bench) -> None:
    source = bench.folder / "in" / "1.jpg"
    source.parent.mkdir()
    source.write_bytes(BOOK)
    recipe = parse_recipe({"checks": {"min_subject_px": 1}})
    output = Output(bucket="out", prefix="")
    job = Job(
        job_id="1",
        run_id="r",
        source=Source(bucket="in", key="1.jpg"),
        output=output,
        recipe=recipe,
    )
    assert (await bench.pipeline.process(job)).status == "done"
    assert stages(bench.metrics) == dict.fromkeys(CPU_STAGES | {"fetch", "publish"}, 1)
    assert set(bench.metrics.counts(IMAGE_BYTES)) == {("queue", "in"), ("queue", "out")}
    # The result exists now, so nothing is read.
    assert (await bench.pipeline.process(job)).status == "skipped_existing"
    assert bench.metrics.counts(IMAGE_BYTES)[("queue", "in")] == len(BOOK)


async def test_of_a_broken_image_the_stage_that_failed_is_recorded(bench: Bench) -> None:
    with pytest.raises(CorruptImage):
        await bench.pipeline.cut_out(BOOK[: len(BOOK) // 2], parse_recipe({}))
    assert stages(bench.metrics) == {"decode": 1}
    assert set(bench.metrics.counts(IMAGE_BYTES)) == {("http", "in")}
    assert bench.metrics.observed(MASK_CONFIDENCE) == {}


def test_the_memory_of_images_and_its_limit_are_sampled(bench: Bench) -> None:
    bench.pipeline.sample()
    [limit] = bench.metrics.values(DECODED_LIMIT_BYTES).values()
    assert bench.metrics.values(DECODED_BYTES) == {(): 0}
    assert limit > 100e6
