"""What Foreedge aims at compared with other systems, and how far a comparison is from it."""

from __future__ import annotations

import operator
from collections.abc import Callable

from serve_app.models.registry import BUNDLED_MODEL

_RatioTarget = tuple[str, str, float | None]

_U2NETP: tuple[_RatioTarget, ...] = (
    ("foreedge-http", "rembg-s", 1.9),
    ("foreedge-queue", "foreedge-http", 0.9),
    ("foreedge-http", "replaced-worker", 3.0),
)
RATE_TARGETS: dict[str, tuple[_RatioTarget, ...]] = {
    BUNDLED_MODEL: (("foreedge-http", "rembg-s", 3.0), ("foreedge-queue", "foreedge-http", None)),
    "u2netp": _U2NETP,
    "u2netp-avx512_bf16": _U2NETP,
    "u2netp-close": (
        ("foreedge-http", "rembg-s", 4.0),
        ("foreedge-queue", "rembg-s", 3.2),
        ("foreedge-queue", "foreedge-http", None),
    ),
    "u2netp-close-avx512_bf16": (
        ("foreedge-http", "rembg-s", None),
        ("foreedge-queue", "rembg-s", None),
        ("foreedge-queue", "foreedge-http", None),
    ),
}
"""Pairs of systems and the ratio of images/s, on 1600 x 1200, that the first one aims at, by the
name of the table."""

_CPU_TARGETS = {"u2netp": 1.15, "u2netp-avx512_bf16": 1.15}
"""Largest ratio of Foreedge's CPU seconds to those of the bare loop, by model."""

_EXTRA_CPU_MS = {"u2netp-close": 15.0}
"""Most milliseconds of CPU for each image beyond those of the bare loop, by the name of the
table."""


def ratios(name: str, systems: dict[str, dict[str, float]]) -> list[str]:
    """Return a line for each ratio that has a target, with the measured value."""
    lines = []
    for ours, other, target in RATE_TARGETS.get(name, ()):
        if ours in systems and other in systems:
            ratio = systems[ours]["images_per_s"] / systems[other]["images_per_s"]
            line = f"{ours} is {ratio:.2f} x {other}"
            lines.append(line + _verdict(ratio, operator.ge, target))
    for ours in ("foreedge-http", "foreedge-queue"):
        if ours in systems and "bare-loop" in systems:
            cpu_s, bare_s = (systems[n]["cpu_s_per_image"] for n in (ours, "bare-loop"))
            ratio = cpu_s / bare_s
            line = f"{ours} takes {ratio:.2f} x the CPU seconds of the bare loop"
            lines.append(line + _verdict(ratio, operator.le, _CPU_TARGETS.get(name)))
            if name in _EXTRA_CPU_MS:
                extra_ms = 1000 * (cpu_s - bare_s)
                line = f"{ours} takes {extra_ms:.0f} ms of CPU more than the bare loop"
                lines.append(line + _verdict(extra_ms, operator.le, _EXTRA_CPU_MS[name], "ms"))
    return lines


def _verdict(
    found: float, within: Callable[[float, float], bool], target: float | None, unit: str = "x"
) -> str:
    if target is None:
        return ""
    return f" (aim {target:g} {unit}: {'reached' if within(found, target) else 'MISSED'})"
