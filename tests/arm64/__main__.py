"""Check Foreedge on emulated arm64 CPUs. The last line has the numbers.

python -m tests.arm64 [--required] [--folder out/arm64]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ingest.node.kernels import are_fast
from ingest.node.report import NodeReport
from serve_app.config import AppConfig
from serve_app.imaging.decode import decode_image
from serve_app.imaging.mask import resize_for_model
from serve_app.imaging.pixels import Pixels
from serve_app.models.derive import derive_graph
from serve_app.models.engines.network import EXACT, INT8, Pair
from serve_app.models.gate import MaskPair, Measures, measure_masks
from serve_app.models.gate_images import draw_gate_images, shrink_images
from serve_app.models.inference import load_model
from serve_app.models.quantization.quantize import calibrate_graph
from serve_app.models.registry import BUNDLED_MODEL, locate_weights
from tests.arm64.engine_mask import mask_of
from tests.arm64.machine import ROOT, Failed, Machine, missing_tools

CPUS = ("neoverse-n1", "max,pauth-impdef=on,sve=off")
"""Graviton2, and a CPU with nearly all features. SVE and QEMU's own pointer authentication are left
out, since their emulation does not end in minutes."""
IMAGES = ("coffee.jpg", "officer.jpg", "photographer.jpg")

_FOLDER = ROOT / "out" / "arm64"
_IMAGES = ROOT / "ingest" / "local" / "real_photographs"
_SMOKE = ("-c", "from ingest.cli.main import main; main()", "smoke", "--model", BUNDLED_MODEL)
_BENCH_NODE = (*_SMOKE[:2], "bench-node", "--emulated", "--model", BUNDLED_MODEL)
_FLOAT16 = Pair("openvino", "float16")
_PAIRS = (EXACT, Pair("openvino", "float32"), _FLOAT16)
_CALIBRATION = 6
"""Drawn images that int8 is calibrated with. Both CPUs run the same graph, however good it is."""
_CUTOUTS = ("-m", "tests.arm64.cutouts")
_SAME_LEVELS = 1
_MIN_SAME = 0.999
_CRASH = "model_unavailable: onnxruntime died with SIGSEGV; /proc/cpuinfo "


def check_smoke(machine: Machine, cpu: str) -> str:
    """Return what HAProxy's arm64 binary says, once ``foreedge smoke`` has passed."""
    code, output, errors = machine.python(cpu, *_SMOKE)
    if code:
        raise Failed(f"{cpu}: foreedge smoke ended with {code}: {output}{errors}")
    report = json.loads(output)
    if report["architecture"] != "aarch64" or not report["models"][BUNDLED_MODEL]["compared"]:
        raise Failed(f"{cpu}: foreedge smoke has compared no mask of an arm64 CPU: {output}")
    return str(report["haproxy"])


def check_cutouts(machine: Machine, cpu: str, expected: Path) -> tuple[int, float]:
    """Compare the cut-outs of a CPU with those of this one.

    Returns:
        The largest difference of a value in grey levels, and the smallest share of an image's
        values that differ by one level or less.
    """
    images = [str(_IMAGES / name) for name in IMAGES]
    with tempfile.TemporaryDirectory() as folder:
        code, _, errors = machine.python(cpu, *_CUTOUTS, folder, *images)
        if code:
            raise Failed(f"{cpu}: the cut-outs ended with {code}: {errors}")
        levels = [
            np.abs(np.load(path).astype(int) - np.load(Path(folder, path.name)))
            for path in sorted(expected.glob("*.npy"))
        ]
    same = min(float((each <= _SAME_LEVELS).mean()) for each in levels)
    most = max(int(each.max()) for each in levels)
    if same < _MIN_SAME or len(levels) != len(IMAGES):
        raise Failed(f"{cpu}: {1 - same:.2%} of a cut-out differ from this CPU's, by up to {most}")
    return most, same


def mask_and_kernels(
    machine: Machine, cpu: str, pair: Pair, graph: bytes
) -> tuple[Pixels, dict[str, int]]:
    """Return the mask of an image on an emulated CPU, and the kernels of the convolutions."""
    image = _IMAGES / IMAGES[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "derived.onnx")
        path.write_bytes(graph)
        command = ("-m", "tests.arm64.engine_mask", folder, str(path), pair.engine, pair.precision)
        code, output, errors = machine.python(cpu, *command, str(image))
        if code:
            raise Failed(f"{cpu}: {pair} ended with {code}: {errors}")
        mask: Pixels = np.load(Path(folder, f"{image.stem}.npy"))
    return mask, json.loads(output.splitlines()[-1])


def check_float16(machine: Machine) -> tuple[Measures, dict[str, int]]:
    """Compare a mask by OpenVINO in float16 with that of ONNX Runtime in float32 on this machine.

    Returns:
        The measures of the gate, and the kernels of the convolutions.
    """
    config = AppConfig.load()
    weights, image = locate_weights(BUNDLED_MODEL, config), _IMAGES / IMAGES[0]
    graph = derive_graph(weights, [])
    found, kernels = mask_and_kernels(machine, CPUS[0], _FLOAT16, graph.content)
    rgb = decode_image(image.read_bytes(), config.limits).rgb
    expected = load_model(BUNDLED_MODEL, config).masks(
        resize_for_model(rgb, weights.facts.size_px)[None]
    )
    measures = measure_masks([MaskPair(image.stem, expected[0], found)])
    if not measures.suffices_for("close"):
        raise Failed(f"float16 misses the gate: {', '.join(measures.failures('close'))}")
    if not are_fast(_FLOAT16, kernels):
        raise Failed(f"float16 runs with slow kernels: {kernels}")
    return measures, kernels


def check_int8(machine: Machine) -> tuple[Measures, dict[str, int]]:
    """Compare a mask in int8 on a CPU with i8mm with that of the same graph on this machine.

    Returns:
        The measures of the gate, and the kernels of the convolutions.
    """
    weights = locate_weights(BUNDLED_MODEL, AppConfig.load())
    drawn = shrink_images(draw_gate_images(_CALIBRATION), weights.facts.size_px)
    graph = calibrate_graph(weights, [image.square for image in drawn]).graph().content
    expected = mask_of(graph, INT8, _IMAGES / IMAGES[0])
    found, kernels = mask_and_kernels(machine, CPUS[1], INT8, graph)
    measures = measure_masks([MaskPair(IMAGES[0], expected, found)])
    if not measures.suffices_for("close"):
        raise Failed(f"int8 differs from this CPU's: {', '.join(measures.failures('close'))}")
    if not are_fast(INT8, kernels):
        raise Failed(f"int8 runs with slow kernels: {kernels}")
    return measures, kernels


def check_bench_node(machine: Machine) -> NodeReport:
    """Run ``foreedge bench-node`` to its end, and check what it reports of an arm64 CPU."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "node.json")
        code, _, errors = machine.python(CPUS[0], *_BENCH_NODE, "--out", str(out))
        if code:
            raise Failed(f"{CPUS[0]}: foreedge bench-node ended with {code}: {errors}")
        report = NodeReport.model_validate_json(out.read_bytes())
    kernels = {Pair(each.engine, each.precision): each for each in report.kernels}
    if report.architecture != "aarch64" or set(kernels) != set(_PAIRS):
        raise Failed(f"foreedge bench-node has measured {list(map(str, kernels))}: {report}")
    if kernels[_PAIRS[0]].fast or not kernels[_PAIRS[2]].fast:
        # ONNX Runtime's wheels for arm64 have no convolutions on blocked feature maps.
        raise Failed(f"foreedge bench-node misjudges the kernels: {report.kernels}")
    if report.speeds or report.settings or report.profile is not None:
        raise Failed("foreedge bench-node recommends settings by times of an emulated CPU")
    return report


def check_crash(machine: Machine) -> None:
    """Check that the crash of ONNX Runtime without the CPU's files is reported."""
    hidden = machine.cpuinfo.rename(machine.folder / "cpuinfo")
    try:
        code, output, _ = machine.python(CPUS[0], *_SMOKE)
    finally:
        hidden.rename(machine.cpuinfo)
    if code != 1 or not json.loads(output)["reason"].startswith(_CRASH):
        raise Failed(f"the crash without /proc/cpuinfo was not reported: {code} {output}")


def check_all(machine: Machine) -> str:
    """Run all checks and return the line with the numbers."""
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {what}", file=sys.stderr, flush=True)

    wheels = machine.make()
    say(f"{wheels} wheels for arm64, none missing")
    with tempfile.TemporaryDirectory() as expected:
        images = [str(_IMAGES / name) for name in IMAGES]
        command = [sys.executable, *_CUTOUTS, expected, *images]
        subprocess.run(command, check=True, cwd=ROOT)
        most, same, haproxy = 0, 1.0, ""
        for cpu in CPUS:
            haproxy = check_smoke(machine, cpu)
            say(f"{cpu}: foreedge smoke passes, {haproxy}")
            found = check_cutouts(machine, cpu, Path(expected))
            most, same = max(most, found[0]), min(same, found[1])
            say(f"{cpu}: cut-outs differ by at most {found[0]}, {found[1]:.4%} within one level")
    measures, kernels = check_float16(machine)
    say(f"OpenVINO in float16: {measures.within_2:.2%} within 2 levels, {kernels}")
    int8, kernels = check_int8(machine)
    say(f"ONNX Runtime in int8: {int8.within_2:.2%} within 2 levels of here, {kernels}")
    report = check_bench_node(machine)
    say(f"foreedge bench-node reports the kernels of {len(report.kernels)} pairs")
    check_crash(machine)
    say("the crash without /proc/cpuinfo is a sentence")
    return (
        f"arm64: {wheels} wheels, 0 missing; {len(CPUS)} CPUs, {len(IMAGES)} cut-outs each, "
        f"at most {most} grey levels, {same:.4%} within one; float16 {measures.within_2:.2%} "
        f"within two, int8 {int8.within_2:.2%}; bench-node ends; {haproxy.split(' 20')[0]}; "
        f"crash reported; {time.monotonic() - began:.0f} s"
    )


def main() -> int:
    """Return the exit code: 1 if something does not hold on arm64."""
    parser = argparse.ArgumentParser(description="Check Foreedge on emulated arm64 CPUs.")
    parser.add_argument("--required", action="store_true", help="Fail if a tool is missing.")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="Folder of the machine.")
    options = parser.parse_args()
    missing = missing_tools()
    if missing:
        print(f"SKIPPED: the check needs apt-get install {' '.join(missing)}")
        return int(options.required)
    try:
        print(check_all(Machine(options.folder.resolve())))
    except Failed as failure:
        print(f"FAILED: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
