"""The split of what images are made of, so that nothing is measured on what it was tuned with."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

Part = Literal["calibration", "development", "test"]
"""Part of a set.

``calibration`` chooses numbers such as thresholds and scales of quantization, ``development`` is
for training and for looking at failures, and ``test`` is only measured.
"""

PARTS: tuple[Part, ...] = get_args(Part)

_CALIBRATION_BELOW = 0.25
_TEST_FROM = 0.7


def part_of(name: str) -> Part:
    """Return the part that a subject or a background belongs to.

    It depends on the name alone: a new name moves no other one. SHA-256 of the name, as a number
    between 0 and 1, gives a quarter of the names to calibration and 30 % to the test.

    Args:
        name: Kind of a subject, or path of a background in its package.
    """
    digest = hashlib.sha256(name.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < _CALIBRATION_BELOW:
        return "calibration"
    return "test" if place >= _TEST_FROM else "development"
