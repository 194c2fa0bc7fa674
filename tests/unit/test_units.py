"""Counts and durations as people write and read them."""

from __future__ import annotations

import pytest

from ingest.units import format_duration, parse_count, parse_duration
from serve_app.errors import InvalidConfig


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", 500),
        ("20k", 20_000),
        ("1.5M", 1_500_000),
        ("10M", 10_000_000),
        ("1,000", 1000),
        ("1,500,000", 1_500_000),
        ("1_500_000", 1_500_000),
        ("12,500k", 12_500_000),
    ],
)
def test_counts(text: str, expected: int) -> None:
    assert parse_count(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "many",
        "0",
        "-5",
        "1.5",
        "10 T",
        "1e6",
        "M",
        "1,5M",
        "1.500.000",
        "10,00",
        "9" * 400,
        "1001b",
    ],
)
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("45m", 2700), ("24h", 86_400), ("1h30m", 5400), ("2d", 172_800), ("1.5 h", 5400),
     ("2min", 120)],
)  # fmt: skip
def test_durations(text: str, expected: float) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "24", "h", "-1h", "0s", "24 hours", "1h30", "36501d", "9" * 400 + "d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(5, "5.0 s"), (45, "45 s"), (119, "119 s"), (150, "2 min 30 s"),
     (3600, "1 h"), (5400, "1 h 30 min"), (86_400, "1 d"), (90_000, "1 d 1 h")],
)  # fmt: skip
def test_durations_for_people(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected
