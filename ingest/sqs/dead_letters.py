"""What a dead letter carries next to the body: our reason, and what the producer attached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ingest.sqs.limits import MESSAGE_ATTRIBUTES, PAYLOAD_BYTES
from serve_app.contracts.job import MAX_JOB_ID_LENGTH

Attributes = Mapping[str, Mapping[str, Any]]
"""Message attributes as SQS delivers them, by name."""

_OWN_PREFIX = "foreedge."
JOB_ID_ATTRIBUTE = "foreedge.job_id"
"""Attribute of a dead letter that names its job."""
CODE_ATTRIBUTE = "foreedge.code"
"""Attribute of a dead letter with the code of the error."""
REASON_ATTRIBUTE = "foreedge.reason"
"""Attribute of a dead letter with the text of the error."""
DROPPED_ATTRIBUTE = "foreedge.dropped"
"""Attribute of a dead letter that names the attributes for which there was no room."""
_VALUES = ("DataType", "StringValue", "BinaryValue")
MAX_ATTRIBUTE_CHARACTERS = 1_000
"""Longest value of an attribute that we write, in characters."""
# SQS accepts the characters of XML 1.0.
_REFUSED_CHARACTERS = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def dead_letter_attributes(
    body: str, producers: Attributes, code: str, reason: str, job_id: str | None
) -> dict[str, dict[str, Any]]:
    """Return the attributes of a dead letter.

    The producer's attributes are kept as they are. What SQS has no room for is left out, and
    ``foreedge.dropped`` names it.

    Args:
        body: Body of the message.
        producers: Attributes with which the message was received.
        code: Error code of the failure.
        reason: Text of the failure.
        job_id: Id of the job that failed.
    """
    # A dead letter that was sent again carries what we wrote on it then.
    carried = {
        name: {key: value[key] for key in _VALUES if key in value}
        for name, value in sorted(producers.items())
        if not name.startswith(_OWN_PREFIX)
    }
    room_bytes = PAYLOAD_BYTES - len(body.encode())
    # These two are short, and say which job failed.
    first = fitting_attributes({CODE_ATTRIBUTE: code, JOB_ID_ATTRIBUTE: job_id}, room_bytes)
    room_bytes -= sum(map(_size, first, map(_text, first.values())))
    kept = _fitting_producers(carried, room_bytes, MESSAGE_ATTRIBUTES - len(first) - 1)
    room_bytes -= sum(map(_size, kept, kept.values()))
    dropped = ", ".join(name for name in carried if name not in kept)
    last = fitting_attributes({DROPPED_ATTRIBUTE: dropped, REASON_ATTRIBUTE: reason}, room_bytes)
    return {name: _text(text) for name, text in (first | last).items()} | kept


def earlier_job_id(attributes: Attributes) -> str | None:
    """Return the id of the job that a dead letter was about, if a message is one sent again."""
    job_id: str = attributes.get(JOB_ID_ATTRIBUTE, {}).get("StringValue", "")
    return job_id if 0 < len(job_id) <= MAX_JOB_ID_LENGTH else None


def fitting_attributes(texts: Mapping[str, str | None], room_bytes: int) -> dict[str, str]:
    """Return the attributes that fit into a message together with its body, in their order.

    Args:
        texts: Values by attribute name. Empty ones are left out.
        room_bytes: Number of bytes that the body leaves of a message.
    """
    fitting = {}
    for name, text in texts.items():
        if value := accepted_text(text or ""):
            room_bytes -= _size(name, _text(value))
            if room_bytes < 0:
                break
            fitting[name] = value
    return fitting


def accepted_text(text: str) -> str:
    """Return a text that SQS accepts as an attribute's value: without odd characters, and short."""
    return _REFUSED_CHARACTERS.sub("\ufffd", text)[:MAX_ATTRIBUTE_CHARACTERS]


def _fitting_producers(
    carried: dict[str, dict[str, Any]], room_bytes: int, room_for: int
) -> dict[str, dict[str, Any]]:
    """Return the attributes that fit, one fewer than there is room for if their names must fit."""
    sizes = {name: _size(name, value) for name, value in carried.items()}
    if len(carried) > room_for or sum(sizes.values()) > room_bytes:
        room_for -= 1  # For the names of those that are dropped.
    kept: dict[str, dict[str, Any]] = {}
    for name, value in carried.items():
        if len(kept) < room_for and sizes[name] <= room_bytes:
            kept[name] = value
            room_bytes -= sizes[name]
    return kept


def _text(value: str) -> dict[str, Any]:
    return {"DataType": "String", "StringValue": value}


def _size(name: str, value: Mapping[str, Any]) -> int:
    """Return the bytes that an attribute takes of a message."""
    content = value.get("BinaryValue", b"") or value.get("StringValue", "").encode()
    return len(name.encode()) + len(value["DataType"].encode()) + len(content)
