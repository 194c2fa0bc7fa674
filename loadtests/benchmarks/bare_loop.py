"""Bare loop: the steps of one image in one process, without a queue, HTTP or Ray.

The cost of the application is measured against it. It prints its numbers as JSON. It runs in its
own process, so that its CPU seconds include no other work::

    python -m loadtests.benchmarks.bare_loop [--scaling] MODEL THREADS IMAGE ...
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from loadtests.harness.application import engine_settings
from loadtests.harness.shaped_models import benchmark_model
from serve_app.config import AppConfig
from serve_app.contracts.precision import Accuracy
from serve_app.contracts.recipe import Checks, Recipe
from serve_app.imaging.compose import compose_cutout
from serve_app.imaging.decode import decode_image
from serve_app.imaging.encode import encode_image
from serve_app.imaging.mask import resize_for_model, resize_mask
from serve_app.imaging.threads import disable_library_threads
from serve_app.models.inference import Model, load_model
from serve_app.segmenter.batcher import Batcher
from serve_app.serving.malloc import keep_freed_memory

T = TypeVar("T")

STAGES = ("decode", "resize", "infer", "mask", "compose", "encode")

_RECIPE = Recipe(checks=Checks(min_subject_px=0))


class BareLoop:
    """A loop that takes images from file to file, one at a time in each thread."""

    def __init__(self, model: Model, config: AppConfig) -> None:
        self._model = model
        self._limits = config.limits
        self.stages_ms: dict[str, list[float]] = {stage: [] for stage in STAGES}
        """CPU milliseconds of each image, by stage. A stage uses only its image's thread."""

    def run(self, paths: Sequence[Path], threads: int) -> dict[str, Any]:
        """Run over images, and return the measurements."""
        images = [path.read_bytes() for path in paths]
        with ThreadPoolExecutor(threads, "image") as pool:
            started_at, cpu_s = time.perf_counter(), time.process_time()
            written = list(pool.map(self._cut_out, images))
            wall_s = time.perf_counter() - started_at
            cpu_s = time.process_time() - cpu_s
        return {
            "images_per_s": len(images) / wall_s,
            "cpu_s_per_image": cpu_s / len(images),
            "png_mb_per_image": sum(size for size, _ in written) / len(images) / 1e6,
            "latencies_s": [latency for _, latency in written],
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "stages_ms": {s: statistics.median(ms) for s, ms in self.stages_ms.items()},
        }

    def _cut_out(self, data: bytes) -> tuple[int, float]:
        """Cut out one image, and return the result's size in bytes and the seconds it took."""
        started_at = time.perf_counter()
        image = self._measured("decode", decode_image, data, self._limits)
        size_px = self._model.size_px
        square = self._measured("resize", resize_for_model, image.rgb, size_px)
        mask = self._measured("infer", self._model.masks, square[None])[0]
        width, height = image.width, image.height
        alpha = self._measured("mask", resize_mask, mask, width, height)
        composed = self._measured("compose", compose_cutout, image.rgb, alpha, None, _RECIPE)
        size = len(self._measured("encode", encode_image, composed, _RECIPE))
        return size, time.perf_counter() - started_at

    def _measured(self, stage: str, function: Callable[..., T], *args: Any) -> T:
        started_at = time.thread_time()
        found = function(*args)
        self.stages_ms[stage].append((time.thread_time() - started_at) * 1000)
        return found


def segmented_per_s(model: Model, paths: Sequence[Path], threads: int, config: AppConfig) -> float:
    """Return the images/s that the Segmenter's code reaches on some threads, without Ray."""
    decoded = [decode_image(path.read_bytes(), config.limits).rgb for path in paths]
    squares = [resize_for_model(rgb, model.size_px) for rgb in decoded]

    def run(images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
        return list(model.masks(np.stack(images)))

    async def submit_all() -> float:
        batcher: Batcher[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] = Batcher(
            run, slots=threads, max_batch_size=1
        )
        # In its first run, each thread gets its memory from the kernel.
        await asyncio.gather(*(batcher.submit(square) for square in squares[:threads]))
        started_at = time.perf_counter()
        await asyncio.gather(*(batcher.submit(square) for square in squares))
        return len(squares) / (time.perf_counter() - started_at)

    return asyncio.run(submit_all())


def main() -> None:
    """Measure the loop, after a warm-up of one image for each thread."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.bare_loop",
        description="Measure the steps of an image in one process, without a queue, HTTP or Ray.",
    )
    parser.add_argument("model", help="name of a benchmark model")
    parser.add_argument("threads", type=int, help="images in progress at once")
    parser.add_argument("images", type=Path, nargs="+", help="image files")
    scaling = "also measure how many times the images/s of one thread all threads reach"
    parser.add_argument("--scaling", action="store_true", help=scaling)
    accuracy = "run the fastest engine and precision with this accuracy instead of the default"
    parser.add_argument("--accuracy", choices=get_args(Accuracy), help=accuracy)
    options = parser.parse_args()
    # A pipeline replica does the same.
    disable_library_threads()
    keep_freed_memory()
    paths, threads = options.images, options.threads
    segmenter = {"threads": threads, **engine_settings(options.accuracy)}
    config = AppConfig.load({**benchmark_model(options.model).settings, "segmenter": segmenter})
    model = load_model(options.model, config)
    BareLoop(model, config).run(paths[:threads], threads)
    found = BareLoop(model, config).run(paths, threads)
    if options.scaling:
        per_s = [segmented_per_s(model, paths, number, config) for number in (1, threads)]
        found["segmenter_scaling"] = per_s[1] / per_s[0]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
