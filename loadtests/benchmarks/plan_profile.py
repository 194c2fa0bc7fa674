"""``python -m loadtests.benchmarks.plan_profile``: measure what ``foreedge plan`` plans with.

Writes ``out/bench/profile.json``; run it on the instance type that is planned for, then
``foreedge plan --profile out/bench/profile.json --time-factor 1``. A model's and the pixels' CPU
seconds for an image are those of the bare loop on one thread. What the application adds to them,
and what one ingest actor can do, is taken from what ``make bench`` and ``make bench-ingest`` have
left in ``out/bench``: let these run first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from ingest.scaling.plan_inputs import ControlPlane, Profile
from loadtests.benchmarks import handle_calls
from loadtests.harness.corpus import corpus
from loadtests.harness.results import machine
from loadtests.harness.shaped_models import benchmark_model
from serve_app.errors import InvalidConfig
from serve_app.models.registry import BUNDLED_MODEL

OUT = Path("out/bench/profile.json")
OVERHEAD = Path("out/bench/overhead.json")
INGEST = Path("out/bench/ingest.json")
IMAGES = {BUNDLED_MODEL: 48, "u2netp": 16, "u2net": 8, "isnet-general-use": 4}
"""Images that each model is measured with."""

_SET = "1600x1200"
_REPLICA_START_S = 10.0
"""An assumption: mostly the import of Ray and of ONNX Runtime."""


def stages_s(model: str, count: int) -> dict[str, float]:
    """Return the CPU seconds of each stage of the bare loop, on one thread."""
    photographs = map(str, corpus(_SET, count))
    command = [sys.executable, "-m", "loadtests.benchmarks.bare_loop", model, "1", *photographs]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)["stages_ms"]
    return {stage: ms / 1000 for stage, ms in found.items()}


def overhead_s(results: list[dict[str, Any]]) -> float:
    """Return the CPU seconds that the application, fed by the queue, adds to an image.

    Without what it takes when it does nothing, which is a share of the node.

    Args:
        results: Of ``overhead.json``.

    Raises:
        InvalidConfig: The bundled model is not among them.
    """
    for result in results:
        if result["model"] == BUNDLED_MODEL:
            bare = float(result["bare"]["cpu_s_per_image"])
            queue = result["queue"]
            whole = float(queue["cpu_s_per_image"]) - float(queue["idle_cpu_s_per_image"])
            return max(0.0, whole - bare)
    raise InvalidConfig(f"{OVERHEAD} has no result of {BUNDLED_MODEL}: run make bench")


def ingest_per_s(results: list[dict[str, Any]]) -> float:
    """Return the messages a second of one ingest actor.

    It is an event loop on one core: what it spends on a message in Ray, in front of a queue that
    is slower than SQS, bounds it, and so does a queue that takes as long for a call as SQS does.

    Args:
        results: Of ``ingest.json``.

    Raises:
        InvalidConfig: A case is missing.
    """
    on_ray = [r["cpu_us_per_message"] for r in results if "Ray" in r["case"]]
    like_sqs = [r["per_second"] for r in results if "ms a call" in r["case"]]
    if not on_ray or not like_sqs:
        raise InvalidConfig(f"{INGEST} lacks a case: run make bench-ingest")
    return min(1e6 / float(on_ray[0]), float(like_sqs[0]))


def describe_machine() -> str:
    """Return what this machine is, in words."""
    found = machine()
    return f"{found['cores']} vCPUs of {found['cpu']} ({found['architecture']})"


def main() -> None:
    """Measure and write a profile."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.benchmarks.plan_profile")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--models", nargs="+", default=list(IMAGES), choices=list(IMAGES))
    options = parser.parse_args()
    for path, target in ((OVERHEAD, "bench"), (INGEST, "bench-ingest")):
        if not path.is_file():
            parser.error(f"{path} is not there: run make {target} first")
    control = ControlPlane(
        ingest_per_s=round(ingest_per_s(_results(INGEST)), 1),
        handle_calls_per_s=round(handle_calls.measure(), 1),
    )
    segment_s: dict[str, float] = {}
    pixels_s = 0.0
    for name in options.models:
        model = benchmark_model(name)
        stages = stages_s(name, IMAGES[name])
        true_weights = model.weights in ("bundled", "rembg's weights")
        segment_s[name if true_weights else f"{name}-shaped"] = round(stages.pop("infer"), 4)
        pixels_s = pixels_s or sum(stages.values())
    with Image.open(corpus(_SET, 1)[0]) as image:
        pixels = image.width * image.height
    profile = Profile(
        measured_on=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=describe_machine(),
        commands=("make bench", "make bench-ingest", "python -m loadtests.benchmarks.plan_profile"),
        images=f"JPEG of {_SET} to PNG",
        image_pixels=pixels,
        segment_s=segment_s,
        pixels_s=round(pixels_s, 4),
        overhead_s=round(overhead_s(_results(OVERHEAD)), 4),
        control_plane=control,
        replica_start_s=_REPLICA_START_S,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(profile.model_dump(mode="json"), indent=2)
    options.out.write_text(text + "\n", "utf-8")
    print(text)


def _results(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["results"]
    return found


if __name__ == "__main__":
    main()
