"""Bound of ICC profiles: the number of steps of a conversion (ICC.1:2022, clauses 7.3 and 9.2)."""

from __future__ import annotations

_TAG_COUNT_AT, _TAGS_AT, _TAG_BYTES = 128, 132, 12
_MAX_TAGS = 100
"""Most tags that LittleCMS reads (``MAX_TABLE_TAG``)."""
_FLOAT_TAGS = {b"%s%d" % (way, intent) for way in (b"D2B", b"B2D") for intent in range(4)}
_UNKNOWN_TAG = b"xxxx"


def bound_profile(profile: bytes) -> bytes:
    """Return a profile without its conversions of floating-point numbers.

    These (``multiProcessElementsType``) have any number of steps, each of which takes time for
    36,000 colours: a profile of 32 KB took 4 s and one of 4 MB would take minutes. Every profile
    has the conversions of integers as well, and a program need not know the others.

    Args:
        profile: ICC profile, which may be broken.
    """
    count = min(int.from_bytes(profile[_TAG_COUNT_AT:_TAGS_AT], "big"), _MAX_TAGS)
    found = bytearray(profile)
    for at in range(_TAGS_AT, min(_TAGS_AT + _TAG_BYTES * count, len(found) - 3), _TAG_BYTES):
        if bytes(found[at : at + 4]) in _FLOAT_TAGS:
            found[at : at + 4] = _UNKNOWN_TAG
    return bytes(found)
