"""Numbers as people write them: 10M images, 24h, 90s."""

from __future__ import annotations

import re

from serve_app.errors import InvalidConfig

_COUNT = re.compile(r"(\d[\d_,]*(?:\.\d+)?)\s*([kKmMbBgG]?)")
_SCALE = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000, "g": 1_000_000_000}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|ms|m|s)")
_SECONDS = {"d": 86_400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_count(text: str) -> int:
    """Return a number such as ``10M``, ``2.5k``, ``1,000``.

    Raises:
        InvalidConfig: It is none, or not a whole one of at least 1.
    """
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        raise InvalidConfig(f"{text!r} is no number of images; write 500, 20k, 1.5M or 10M")
    value = float(re.sub("[_,]", "", match[1])) * _SCALE[match[2].lower()]
    if value != int(value) or value < 1:
        raise InvalidConfig(f"{text!r} is not a whole number of at least 1")
    return int(value)


def parse_duration(text: str) -> float:
    """Return the seconds of a time such as ``24h``, ``90s``, ``1h30m``, ``2d``.

    Raises:
        InvalidConfig: It is none, or nothing is left of it.
    """
    compact = "".join(text.split()).lower()
    parts = _DURATION_PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise InvalidConfig(f"{text!r} is no time; write 90s, 45m, 24h, 1h30m or 2d")
    value: float = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if value <= 0:
        raise InvalidConfig(f"{text!r} is no time at all")
    return value


def format_duration(seconds: float) -> str:
    """Return a time with its two largest units, and below ten seconds with a decimal."""
    whole = round(seconds)
    if whole < 120:
        return f"{seconds:.0f} s" if whole >= 10 else f"{seconds:.1f} s"
    units = [(whole // 86_400, "d"), (whole % 86_400 // 3600, "h"), (whole % 3600 // 60, "min")]
    if units[0][0] == 0 and units[1][0] == 0:
        units.append((whole % 60, "s"))
    shown = [f"{value} {unit}" for value, unit in units if value]
    return " ".join(shown[:2])
