"""The base class of contracts, and the text of a validation error."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, ValidationError

_MAX_DESCRIBED = 20
"""Most invalid fields that an error names. A text of 1 MiB can have 70,000."""
_MAX_NAME_LENGTH = 100


class Contract(BaseModel):
    """Base of the values that cross processes, frozen and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def describe_validation_error(
    error: ValidationError, describe_unknown: Callable[[str], str] | None = None
) -> str:
    """Return a pydantic error as one line, which names invalid fields and the reason for each.

    Args:
        error: The error.
        describe_unknown: Function from the dotted name of an unknown field to the text about it.
    """
    parts = []
    items = error.errors(include_url=False, include_context=False, include_input=False)
    for item in items[:_MAX_DESCRIBED]:
        where = ".".join(str(part) for part in item["loc"])
        if len(where) > _MAX_NAME_LENGTH:
            where = where[:_MAX_NAME_LENGTH] + "…"
        text = item["msg"].removeprefix("Value error, ")
        if describe_unknown is not None and item["type"] == "extra_forbidden":
            parts.append(describe_unknown(where))
        else:
            parts.append(f"{where}: {text}" if where else text)
    if len(items) > _MAX_DESCRIBED:
        parts.append(f"and {len(items) - _MAX_DESCRIBED:,} more")
    return "; ".join(parts)
