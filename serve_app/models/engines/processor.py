"""What this machine's processor can do, and which pairs it therefore runs well.

OpenVINO's bfloat16 is faster than ONNX Runtime's float32 with AMX, and with AVX512_BF16 on AMD's
processors. On Intel's, AVX512_BF16 without AMX makes it slower, and on some that lack AVX-512 it
does not compile at all (measured, docs/decisions/0025). Without VNNI (x86-64) or i8mm (arm64), ONNX
Runtime's int8 was never measured. On x86-64 it then adds products of unsigned and signed bytes in
16 bits, which saturate.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

from serve_app.contracts.precision import Engine, Precision
from serve_app.models.engines.cpu_quota import CGROUPS, MEMBERSHIP, read_cpu_quota
from serve_app.models.engines.cpuinfo import read_cpuinfo, read_features, read_value
from serve_app.models.engines.network import INT8, Pair
from serve_app.models.engines.onnx_runtime import runtime_version
from serve_app.models.engines.openvino_runtime import openvino_version

_AMD = "AuthenticAMD"
_NEEDED = {
    "bfloat16": ("amx_bf16", "avx512_bf16 of AMD"),
    "float16": ("avx512_fp16", "asimdhp"),
    "int8": ("avx512_vnni", "avx_vnni", "i8mm"),
}
"""Features of which a processor needs one to run a precision."""
_ARM = "aarch64"


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides which pairs run, and with which kernels."""

    architecture: str
    """Architecture, such as ``x86_64`` or ``aarch64``."""
    features: frozenset[str]
    """Features of the processor that choose the kernels of an engine."""
    openvino: str | None
    """Version of OpenVINO, or None if it is not installed."""
    onnxruntime: str = field(default_factory=runtime_version)
    """Version of ONNX Runtime."""
    vendor: str = ""
    """Maker of an x86-64 processor, as it names itself, such as ``AuthenticAMD``."""

    def version_of(self, engine: Engine) -> str | None:
        """Return the version of an engine, or None if it is not installed."""
        return self.openvino if engine == "openvino" else self.onnxruntime


def this_machine() -> Machine:
    """Return what this machine has. Without ``/proc/cpuinfo`` no features are known."""
    text = read_cpuinfo()
    return Machine(
        platform.machine(),
        read_features(text),
        openvino_version(),
        vendor=read_value(text, "vendor_id"),
    )


def usable_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Return the number of cores that this process may use, within the quota of its container.

    Args:
        cgroups: Folder of the control groups.
        membership: File that names the group of this process.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = read_cpu_quota(cgroups, membership)
    return cores if quota is None else min(cores, math.ceil(quota))


def why_not_runnable(pair: Pair, machine: Machine) -> str | None:
    """Return why a machine cannot run a pair in its precision, or None if it can."""
    if pair.engine == "openvino" and machine.openvino is None:
        return (
            "OpenVINO is not installed here: pip install -e '.[openvino]' in the clone, or build "
            "the image with OPENVINO=1"
        )
    needed = _NEEDED.get(pair.precision, ())
    if not needed or _useful_features(pair.precision, machine):
        return None
    return f"the processor has no {' or '.join(needed)}, without which {pair} is slow or fails"


def pairs_by_speed(machine: Machine) -> list[Pair]:
    """Return the pairs that a processor runs faster than ONNX Runtime's float32, by speed.

    Source of the order: docs/decisions/0025. On x86-64 float16 is slower than float32.
    """
    found = []
    if _useful_features("bfloat16", machine):
        found.append(Pair("openvino", "bfloat16"))
    if machine.architecture == _ARM and "asimdhp" in machine.features:
        found.append(Pair("openvino", "float16"))
    if _useful_features("int8", machine):
        found.append(INT8)
    return found


def kernel_features(pair: Pair, machine: Machine) -> tuple[str, ...]:
    """Return the features that decide which kernels compute a pair's numbers, sorted."""
    vectors = machine.features.intersection(("sve", "sve2"))
    return tuple(sorted({*_useful_features(pair.precision, machine), *vectors}))


def _useful_features(precision: Precision, machine: Machine) -> list[str]:
    """Return what a processor has of the features with which it runs a precision well."""
    if precision == "bfloat16":
        if "amx_bf16" in machine.features:
            # Its kernels come before those of AVX512_BF16.
            return ["amx_bf16"]
        fast = machine.vendor == _AMD and "avx512_bf16" in machine.features
        return ["avx512_bf16"] if fast else []
    return [each for each in _NEEDED.get(precision, ()) if each in machine.features]
