"""Measure the profile that ``foreedge plan`` uses: ``python -m loadtests.benchmarks.plan_profile``.

Run it on the instance type to plan for. It writes ``out/bench/profile.json``, for
``foreedge plan --profile out/bench/profile.json --time-factor 1``.

The CPU seconds that the model takes with each engine and precision, and those of the pixel work,
are measured here, on one thread. The seconds that the application adds, and the rate of one ingest
actor, come from the results of ``make bench`` and ``make bench-ingest`` in ``out/bench``. Run these
two first, or take them from another profile (``--application``). ``foreedge bench-node`` measures
one model in the same way without the benchmarks.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ingest.node.pixels import HEIGHT, WIDTH, measure_pixels_s
from ingest.node.profile import application_of_profile, describe_processors
from ingest.node.speed import Case, measure_case
from ingest.scaling.plan_inputs import ControlPlane, Profile, read_profile
from loadtests.benchmarks import handle_calls
from loadtests.harness.results import describe_machine, measure_busy_cores
from loadtests.harness.shaped_models import BenchmarkModel, benchmark_model
from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig
from serve_app.models.derive import derive_graph
from serve_app.models.engines.choice import Choice
from serve_app.models.engines.network import EXACT, GATED, OPENVINO_EXACT, Pair
from serve_app.models.engines.processor import (
    kernel_features,
    pairs_by_speed,
    this_machine,
    why_not_runnable,
)
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.registry import BUNDLED_MODEL, locate_weights

OUT = Path("out/bench/profile.json")
OVERHEAD = Path("out/bench/overhead.json")
INGEST = Path("out/bench/ingest.json")
MODELS = (BUNDLED_MODEL, "u2netp", "u2net", "isnet-general-use")
"""Models that are measured."""

_COMMAND = "python -m loadtests.benchmarks.plan_profile"
_PIXEL_RUNS = 31
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


def application_of(profile: Path | None) -> dict[str, Any]:
    """Return the fields of a profile that only a running application shows.

    Args:
        profile: Profile that has them already. None: the results in ``out/bench``.

    Raises:
        InvalidConfig: The profile or the results cannot be used.
    """
    if profile is not None:
        return application_of_profile(read_profile(profile))
    control = ControlPlane(
        ingest_per_s=round(ingest_per_s(_read_results(INGEST)), 1),
        handle_calls_per_s=round(handle_calls.measure(), 1),
    )
    return {
        "overhead_s": round(overhead_s(_read_results(OVERHEAD)), 4),
        "control_plane": control,
        "replica_start_s": _REPLICA_START_S,
        "from_elsewhere": {"replica_start_s": "assumed"},
    }


def segment_s(model: BenchmarkModel, seconds: float, rounds: int) -> dict[Pair, float]:
    """Return the CPU seconds of an image with each pair that this machine runs well.

    Args:
        model: The model.
        seconds: Time of a round, in which at least one image is measured.
        rounds: Rounds, in turns, of which the smallest result counts: what other work on the
            machine adds, such as misses of a shared cache, never makes it smaller.
    """
    weights = locate_weights(model.name, AppConfig.load(model.settings))
    machine = this_machine()
    # int8 needs a calibration: foreedge bench-node measures it once it is made.
    fast = [pair for pair in pairs_by_speed(machine) if pair in GATED]
    pairs = [EXACT, OPENVINO_EXACT, *fast]
    runnable = [pair for pair in pairs if why_not_runnable(pair, machine) is None]
    with tempfile.TemporaryDirectory(prefix="foreedge-") as folder:
        derived = Path(folder, "derived.onnx")
        derived.write_bytes(derive_graph(weights, []).content)
        choices = [Choice(pair, derived if pair.changes_numbers else None) for pair in runnable]
        found = [
            [measure_case(Case(weights, choice, 1, seconds)).cpu_s_per_image for choice in choices]
            for _ in range(rounds)
        ]
    return {pair: min(each[place] for each in found) for place, pair in enumerate(runnable)}


def measure(models: Sequence[str], rounds: int, seconds: float, base: Path | None) -> Profile:
    """Measure a profile with some models. See ``segment_s`` and ``application_of``."""
    application, busy, machine = application_of(base), measure_busy_cores(), describe_machine()
    times: dict[Pair, dict[str, float]] = {}
    for name in models:
        model = benchmark_model(name)
        title = name if model.has_true_weights else f"{name}-shaped"
        for pair, value in segment_s(model, seconds, rounds).items():
            times.setdefault(pair, {})[title] = value
            print(f"{title}, {pair}: {value:.4f} s", file=sys.stderr, flush=True)
    size_px = MODEL_FACTS[models[0]].size_px
    pixels_s = min(measure_pixels_s(size_px, _PIXEL_RUNS) for _ in range(rounds))
    commands = (_COMMAND,) if base else ("make bench", "make bench-ingest", _COMMAND)
    return Profile(
        measured_on=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=describe_processors(machine["cores"], machine["cpu"], machine["architecture"]),
        architecture=machine["architecture"],
        method=f"CPU seconds of whole processes on one thread, the smallest of {rounds} rounds, "
        f"with {busy:g} of the cores busy with other work before.",
        commands=commands,
        images=f"JPEG of {WIDTH}x{HEIGHT} to PNG",
        image_pixels=WIDTH * HEIGHT,
        segment_s=times.pop(EXACT),
        other_engines_s={str(pair): found for pair, found in times.items()},
        other_engines_kernels={str(pair): kernel_features(pair, this_machine()) for pair in times},
        pixels_s=round(pixels_s, 4),
        **application,
    )


def main() -> None:
    """Measure a profile, print it, and write it."""
    parser = argparse.ArgumentParser(
        prog=_COMMAND, description="Measure the profile of this machine that foreedge plan uses."
    )
    add = parser.add_argument
    add("--out", type=Path, default=OUT, help="JSON file of the profile")
    add("--models", nargs="+", default=list(MODELS), choices=MODELS, help="models")
    add("--rounds", type=int, default=3, help="rounds, the smallest result of which counts")
    add("--seconds", type=float, default=2.0, help="seconds of each measurement")
    application = "profile that has what the application costs, instead of the results in out/bench"
    add("--application", type=Path, help=application)
    options = parser.parse_args()
    if options.application is None:
        for path, target in ((OVERHEAD, "bench"), (INGEST, "bench-ingest")):
            if not path.is_file():
                parser.error(f"{path} does not exist. Run make {target}, or give --application.")
    profile = measure(options.models, options.rounds, options.seconds, options.application)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(profile.model_dump(mode="json"), indent=2)
    options.out.write_text(text + "\n", "utf-8")
    print(text)


def _read_results(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["results"]
    return found


if __name__ == "__main__":
    main()
