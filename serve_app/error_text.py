"""What the text of an error may contain, wherever it is shown: in an answer, a log, the ledger."""

from __future__ import annotations

import re

MAX_CHARACTERS = 2_000
"""Longest text of an error, in characters. The ledger keeps one for each failed job."""

_KEPT_AT_END = 400
# The query of a URL ends at white space. Quotation marks may be part of it.
_URL = re.compile(r"""(https?://)([^\s/?#<>"]*)([^\s?#<>"]*)[^\s<>"]*""", re.IGNORECASE)


def safe_text(text: str) -> str:
    """Return the text of an error without credentials, and with a bounded length.

    User name, password, query and fragment are cut off every HTTP URL: whoever has a presigned URL
    can read the object.
    """
    text = _URL.sub(lambda url: url[1] + url[2].rpartition("@")[2] + url[3], text)
    if len(text) <= MAX_CHARACTERS:
        return text
    # The end often has the cause.
    kept = MAX_CHARACTERS - _KEPT_AT_END
    left_out = len(text) - MAX_CHARACTERS
    return f"{text[:kept]} … {left_out:,} characters left out … {text[-_KEPT_AT_END:]}"
