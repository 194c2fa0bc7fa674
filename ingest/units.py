"""Counts and durations as people write them: 10M images, 24h, 90s."""

from __future__ import annotations

import re

from serve_app.errors import InvalidConfig

# Digits may be grouped by threes, so that 1,5M is not read as 15 million.
_COUNT = re.compile(r"(\d{1,3}(?:[,_]\d{3})+|\d+)(\.\d+)?\s*([kKmMbBgG]?)")
_SCALE = {"": 1, "k": 1_000, "m": 1_000_000, "b": 1_000_000_000, "g": 1_000_000_000}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(d|h|min|ms|m|s)")
_SHOWN_LENGTH = 60
_MAX_COUNT = 10**12
_MAX_DURATION_S = 100 * 365 * 86_400.0
"""A hundred years. What is longer is a slip, and no date goes back as far."""
_SECONDS = {"d": 86_400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as in ``1 run`` and ``2,000 runs``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def parse_count(text: str) -> int:
    """Return the number that a text such as ``10M``, ``2.5k`` or ``1,000`` stands for.

    Raises:
        InvalidConfig: The text is not a whole number from 1 to 1,000,000,000,000.
    """
    match = _COUNT.fullmatch(text.strip())
    if match is None:
        raise InvalidConfig(f"invalid number of images {_shown(text)}. Use 500, 20k, 1.5M or 10M")
    digits = re.sub("[_,]", "", match[1])
    value = float(digits + (match[2] or "")) * _SCALE[match[3].lower()]
    if not 1 <= value <= _MAX_COUNT or value != int(value):
        raise InvalidConfig(
            f"invalid number of images {_shown(text)}. It must be a whole number from 1 to "
            f"{_MAX_COUNT:,}"
        )
    return int(value)


def parse_duration(text: str) -> float:
    """Return the seconds that a text such as ``24h``, ``90s``, ``1h30m`` or ``2d`` stands for.

    Raises:
        InvalidConfig: The text is not a duration of more than 0 and at most 100 years.
    """
    compact = "".join(text.split()).lower()
    parts = _DURATION_PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise InvalidConfig(f"invalid duration {_shown(text)}. Use 90s, 45m, 24h, 1h30m or 2d")
    value: float = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not 0 < value <= _MAX_DURATION_S:
        raise InvalidConfig(
            f"invalid duration {_shown(text)}. It must be longer than 0 s, and 100 years at most"
        )
    return value


def _shown(text: str) -> str:
    """Return a text in quotation marks, and no more of it than fits a line."""
    return repr(text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…")


def format_duration(seconds: float) -> str:
    """Return a duration with its two largest units, or with one decimal below ten seconds."""
    whole = round(seconds)
    if whole < 120:
        return f"{seconds:.0f} s" if whole >= 10 else f"{seconds:.1f} s"
    units = [(whole // 86_400, "d"), (whole % 86_400 // 3600, "h"), (whole % 3600 // 60, "min")]
    if units[0][0] == 0 and units[1][0] == 0:
        units.append((whole % 60, "s"))
    shown = [f"{value} {unit}" for value, unit in units if value]
    return " ".join(shown[:2])
