"""``python -m loadtests.plan_profile``: measure what ``foreedge plan`` plans with.

Writes ``out/bench/profile.json``; run it on the instance type that is planned for, then
``foreedge plan --profile out/bench/profile.json --time-factor 1``. One thread, one image at a
time, after warming up: an image's seconds where no core is shared. What the application adds is
taken from ``out/bench/overhead.json`` of ``make bench`` where that is there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ingest.planning import ControlPlane, Profile
from loadtests import control_plane
from loadtests.corpus import corpus
from loadtests.models import BenchmarkModel, benchmark_model
from serve_app.config import AppConfig
from serve_app.contracts import Recipe
from serve_app.cutout import Stages, render
from serve_app.imaging import mask as masks
from serve_app.imaging.decode import decode
from serve_app.models.bundled.synthetic import photograph
from serve_app.models.execution import load

OUT = Path("out/bench/profile.json")
MODELS = ("folio", "u2netp", "u2net", "isnet-general-use")

_BUDGET_S = 12.0
"""Of one measurement, about."""
_SET = "1600x1200"
_OVERHEAD_S = 0.02
"""CPU seconds that the application adds to an image, where it was not measured; an assumption."""
_REPLICA_START_S = 10.0
"""An assumption: mostly the import of Ray and of ONNX Runtime."""


def segment_s(model: BenchmarkModel) -> float:
    """Return a model's seconds for an image on one thread."""
    config = AppConfig.load({**model.settings, "segmenter": {"threads": 1}})
    loaded = load(model.name, config)
    scene = photograph(1, width=loaded.size_px, height=loaded.size_px)
    image = np.ascontiguousarray(scene.image)[None]
    return _median_s(lambda: loaded.masks(image))


def pixels_s() -> tuple[float, int]:
    """Return the seconds of all work on pixels for an image on one thread, and its pixels."""
    files = [path.read_bytes() for path in corpus(_SET, 4)]
    limits, recipe = AppConfig.load().limits, Recipe()
    size_px = 320
    number = 0

    def one() -> None:
        nonlocal number
        data = files[number % len(files)]
        number += 1
        taken = decode(data, limits)
        masks.model_input(taken.rgb, size_px)
        mask = np.zeros((size_px, size_px), np.uint8)
        mask[60:260, 80:240] = 255
        render(taken, mask, recipe, "none", Stages())

    seconds = _median_s(one)
    taken = decode(files[0], limits)
    return seconds, taken.width * taken.height


def overhead_s(path: Path = Path("out/bench/overhead.json")) -> float:
    """Return the CPU seconds that the application adds to an image."""
    if not path.is_file():
        return _OVERHEAD_S
    found = json.loads(path.read_text("utf-8"))
    return max(0.0, float(found["overhead_cpu_s_per_image"]))


def machine() -> str:
    """Return what this machine is, in words."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    return f"{os.cpu_count()} vCPUs of {name} ({platform.machine()})"


def main() -> None:
    """Measure and write a profile."""
    parser = argparse.ArgumentParser(description="Measures what foreedge plan plans with.")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument(
        "--no-control-plane", action="store_true", help="keep the limits of the file that is there"
    )
    options = parser.parse_args()
    if options.no_control_plane and options.out.is_file():
        before = json.loads(options.out.read_text("utf-8"))["control_plane"]
        control = ControlPlane.model_validate(before)
    else:
        control = control_plane.measure()
    times = {}
    for name in options.models:
        model = benchmark_model(name)
        known = name if model.weights in ("bundled", "rembg's weights") else f"{name}-shaped"
        times[known] = round(segment_s(model), 4)
        print(f"{model.label}: {times[known]} s")
    seconds, pixels = pixels_s()
    profile = Profile(
        measured_on=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=machine(),
        commands=("python -m loadtests.plan_profile",),
        images=f"{_SET} JPEG to PNG at the default compression",
        image_pixels=pixels,
        segment_s=times,
        pixels_s=round(seconds, 4),
        overhead_s=round(overhead_s(), 4),
        control_plane=control,
        replica_start_s=_REPLICA_START_S,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(profile.model_dump(mode="json"), indent=2)
    options.out.write_text(text + "\n", "utf-8")
    print(text)


def _median_s(call: Callable[[], object]) -> float:
    call()
    began = time.perf_counter()
    times: list[float] = []
    while len(times) < 3 or time.perf_counter() - began < _BUDGET_S:
        started_at = time.perf_counter()
        call()
        times.append(time.perf_counter() - started_at)
    return statistics.median(times)


if __name__ == "__main__":
    main()
