"""What the text of an error may contain, wherever it is shown: in an answer, a log, the ledger."""

from __future__ import annotations

import re

MAX_CHARACTERS = 2_000
"""Longest text of an error, in characters. The ledger keeps one for each failed job."""

_KEPT_AT_END = 400
# The query of a URL ends at white space. Quotation marks may be part of it.
_URL = re.compile(r"""(https?://)([^\s/?#<>"]*)([^\s?#<>"]*)[^\s<>"]*""", re.IGNORECASE)


def safe_text(text: str) -> str:
    """Return the text of an error on one line, without credentials, and with a bounded length.

    User name, password, query and fragment are cut off every HTTP URL: whoever has a presigned URL
    can read the object.
    """
    text = _URL.sub(lambda url: url[1] + url[2].rpartition("@")[2] + url[3], text)
    text = _shortened(text)
    if text.isprintable():
        return text
    # An escape is longer than what it stands for.
    return _shortened(visible(text))


def visible(text: str) -> str:
    """Return a text of others for a terminal or a log: what is not printable as an escape.

    A key may contain control sequences, line breaks, and marks that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def _shortened(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    # The end often has the cause.
    kept = MAX_CHARACTERS - _KEPT_AT_END
    left_out = len(text) - MAX_CHARACTERS
    return f"{text[:kept]} … {left_out:,} characters left out … {text[-_KEPT_AT_END:]}"
