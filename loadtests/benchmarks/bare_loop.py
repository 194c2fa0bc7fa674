"""The bare loop: the steps of one image in one process, with no queue, no HTTP and no Ray.

The application's cost is measured against it. It prints its numbers as JSON, from a process of its
own, so that its CPU seconds are its own too::

    python -m loadtests.benchmarks.bare_loop [--scaling] MODEL THREADS PHOTOGRAPH ...
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
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from loadtests.harness.shaped_models import benchmark_model
from serve_app.config import AppConfig
from serve_app.contracts.recipe import Checks, Recipe
from serve_app.imaging.compose import compose_cutout
from serve_app.imaging.decode import decode_image
from serve_app.imaging.encode import encode_image
from serve_app.imaging.mask import find_subject_box, resize_for_model, resize_mask
from serve_app.imaging.threads import disable_library_threads
from serve_app.models.inference import Model, load_model
from serve_app.segmenter.batcher import Batcher
from serve_app.serving.malloc import keep_freed_memory

T = TypeVar("T")

STAGES = ("decode", "resize", "infer", "mask", "compose", "encode")

_RECIPE = Recipe(checks=Checks(min_subject_px=0))


class Loop:
    """Takes images from file to file; every thread takes one image at a time."""

    def __init__(self, model: Model, config: AppConfig) -> None:
        self._model = model
        self._limits = config.limits
        self.stages_ms: dict[str, list[float]] = {stage: [] for stage in STAGES}
        """CPU milliseconds of each image: every stage runs in its image's own thread alone."""

    def run(self, paths: Sequence[Path], threads: int) -> dict[str, Any]:
        """Return what a run over photographs measured."""
        images = [path.read_bytes() for path in paths]
        with ThreadPoolExecutor(threads, "image") as pool:
            started_at, cpu_s = time.perf_counter(), time.process_time()
            written = list(pool.map(self._image, images))
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

    def _image(self, data: bytes) -> tuple[int, float]:
        """Return the size of a result in bytes, and the seconds that it took."""
        started_at = time.perf_counter()
        photograph = self._measured("decode", decode_image, data, self._limits)
        size_px = self._model.size_px
        square = self._measured("resize", resize_for_model, photograph.rgb, size_px)
        mask = self._measured("infer", self._model.masks, square[None])[0]
        width, height = photograph.width, photograph.height
        alpha = self._measured("mask", resize_mask, mask, width, height)
        box = find_subject_box(alpha)
        picture = self._measured("compose", compose_cutout, photograph.rgb, alpha, box, _RECIPE)
        size = len(self._measured("encode", encode_image, picture, _RECIPE))
        return size, time.perf_counter() - started_at

    def _measured(self, stage: str, function: Callable[..., T], *args: Any) -> T:
        started_at = time.thread_time()
        found = function(*args)
        self.stages_ms[stage].append((time.thread_time() - started_at) * 1000)
        return found


def segmented_per_s(model: Model, paths: Sequence[Path], threads: int, config: AppConfig) -> float:
    """Return images/s of the Segmenter's own code, without Ray, on a number of threads."""
    decoded = [decode_image(path.read_bytes(), config.limits).rgb for path in paths]
    squares = [resize_for_model(rgb, model.size_px) for rgb in decoded]

    def run(images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
        return list(model.masks(np.stack(images)))

    async def all_of_them() -> float:
        batcher: Batcher[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] = Batcher(
            run, slots=threads, max_batch_size=1
        )
        # Each thread's first run takes its memory from the kernel.
        await asyncio.gather(*(batcher.submit(square) for square in squares[:threads]))
        started_at = time.perf_counter()
        await asyncio.gather(*(batcher.submit(square) for square in squares))
        return len(squares) / (time.perf_counter() - started_at)

    return asyncio.run(all_of_them())


def main() -> None:
    """Measure, after one image per thread that does not count."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.benchmarks.bare_loop")
    parser.add_argument("model")
    parser.add_argument("threads", type=int)
    parser.add_argument("photographs", type=Path, nargs="+")
    parser.add_argument(
        "--scaling", action="store_true", help="what the threads do of the images/s of one, too"
    )
    options = parser.parse_args()
    # As in a pipeline replica.
    disable_library_threads()
    keep_freed_memory()
    config = AppConfig.load(benchmark_model(options.model).settings)
    model = load_model(options.model, config)
    paths, threads = options.photographs, options.threads
    Loop(model, config).run(paths[:threads], threads)
    found = Loop(model, config).run(paths, threads)
    if options.scaling:
        per_s = [segmented_per_s(model, paths, number, config) for number in (1, threads)]
        found["segmenter_scaling"] = per_s[1] / per_s[0]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
