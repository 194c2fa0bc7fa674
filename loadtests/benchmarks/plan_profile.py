"""Measure the profile that ``foreedge plan`` uses: ``python -m loadtests.benchmarks.plan_profile``.

Run it on the instance type to plan for. It writes ``out/bench/profile.json``, for
``foreedge plan --profile out/bench/profile.json --time-factor 1``.

The CPU seconds that the model and the pixel work take for an image are those of the bare loop on
one thread. The seconds that the application adds, and the rate of one ingest actor, come from the
results of ``make bench`` and ``make bench-ingest`` in ``out/bench``. Run these two first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from ingest.scaling.plan_inputs import ControlPlane, Profile
from loadtests.benchmarks import handle_calls
from loadtests.benchmarks.stages import stages_s
from loadtests.harness.corpus import corpus
from loadtests.harness.results import describe_machine
from loadtests.harness.shaped_models import benchmark_model
from serve_app.errors import InvalidConfig
from serve_app.models.registry import BUNDLED_MODEL

OUT = Path("out/bench/profile.json")
OVERHEAD = Path("out/bench/overhead.json")
INGEST = Path("out/bench/ingest.json")
IMAGES = {BUNDLED_MODEL: 48, "u2netp": 16, "u2net": 8, "isnet-general-use": 4}
"""Number of images that each model is measured with."""

_SET = "1600x1200"
_REPLICA_START_S = 10.0
"""Assumed start-up time of a replica, most of which imports Ray and ONNX Runtime."""


def overhead_s(results: list[dict[str, Any]]) -> float:
    """Return the CPU seconds that the application adds to an image from the queue.

    They do not include the CPU time of the idle application, which a plan reserves on the node.

    Args:
        results: Results in ``overhead.json``.

    Raises:
        InvalidConfig: The results lack the bundled model.
    """
    for result in results:
        if result["model"] == BUNDLED_MODEL:
            bare = float(result["bare"]["cpu_s_per_image"])
            queue = result["queue"]
            whole = float(queue["cpu_s_per_image"]) - float(queue["idle_cpu_s_per_image"])
            return max(0.0, whole - bare)
    raise InvalidConfig(f"{OVERHEAD} has no result for {BUNDLED_MODEL}: run make bench")


def ingest_per_s(results: list[dict[str, Any]]) -> float:
    """Return the messages per second that one ingest actor can handle.

    An ingest actor is an event loop on one core. Two things limit it: the CPU time that it spends
    on a message in Ray, and the rate that calls as slow as those of SQS allow.

    Args:
        results: Results in ``ingest.json``.

    Raises:
        InvalidConfig: The results lack a case.
    """
    on_ray = [r["cpu_us_per_message"] for r in results if "Ray" in r["case"]]
    like_sqs = [r["per_second"] for r in results if "ms a call" in r["case"]]
    if not on_ray or not like_sqs:
        raise InvalidConfig(f"{INGEST} lacks a case: run make bench-ingest")
    return min(1e6 / float(on_ray[0]), float(like_sqs[0]))


def machine_name() -> str:
    """Return the processor and the number of vCPUs of this machine, in words."""
    found = describe_machine()
    return f"{found['cores']} vCPUs of {found['cpu']} ({found['architecture']})"


def measure(models: Sequence[str]) -> Profile:
    """Measure a profile with some models."""
    control = ControlPlane(
        ingest_per_s=round(ingest_per_s(_read_results(INGEST)), 1),
        handle_calls_per_s=round(handle_calls.measure(), 1),
    )
    segment_s: dict[str, float] = {}
    pixels_s = 0.0
    for name in models:
        model = benchmark_model(name)
        stages = stages_s(name, corpus(_SET, IMAGES[name]))
        segment_s[name if model.has_true_weights else f"{name}-shaped"] = round(
            stages.pop("infer"), 4
        )
        pixels_s = pixels_s or sum(stages.values())
    with Image.open(corpus(_SET, 1)[0]) as image:
        pixels = image.width * image.height
    return Profile(
        measured_on=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=machine_name(),
        commands=("make bench", "make bench-ingest", "python -m loadtests.benchmarks.plan_profile"),
        images=f"JPEG of {_SET} to PNG",
        image_pixels=pixels,
        segment_s=segment_s,
        pixels_s=round(pixels_s, 4),
        overhead_s=round(overhead_s(_read_results(OVERHEAD)), 4),
        control_plane=control,
        replica_start_s=_REPLICA_START_S,
    )


def main() -> None:
    """Measure a profile, print it, and write it."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.plan_profile",
        description="Measure the profile of this machine that foreedge plan uses.",
    )
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file of the profile")
    models = list(IMAGES)
    parser.add_argument("--models", nargs="+", default=models, choices=models, help="models")
    options = parser.parse_args()
    for path, target in ((OVERHEAD, "bench"), (INGEST, "bench-ingest")):
        if not path.is_file():
            parser.error(f"{path} does not exist. Run make {target} first.")
    profile = measure(options.models)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(profile.model_dump(mode="json"), indent=2)
    options.out.write_text(text + "\n", "utf-8")
    print(text)


def _read_results(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["results"]
    return found


if __name__ == "__main__":
    main()
