"""What is known of a processor."""

from __future__ import annotations

import pytest

from serve_app.models.engines.cpuinfo import read_features


@pytest.mark.parametrize(
    ("text", "features"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 amx_bf16 amx_tile\n", {"avx2", "amx_bf16"}),
        ("processor\t: 0\nFeatures\t: fp asimd asimdhp sve i8mm\n", {"asimdhp", "sve", "i8mm"}),
        ("model name\t: amx_bf16\n", set()),
        ("", set()),
    ],
)
def test_features_are_read_from_cpuinfo(text: str, features: set[str]) -> None:
    assert read_features(text) == features
