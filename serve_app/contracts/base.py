"""The base class of contracts, and the text of a validation error."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, ValidationError


class Contract(BaseModel):
    """Base of the values that cross processes, frozen and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def describe_validation_error(
    error: ValidationError, describe_unknown: Callable[[str], str] | None = None
) -> str:
    """Return a pydantic error as one line, which names each invalid field and the reason.

    Args:
        error: The error.
        describe_unknown: Function from the dotted name of an unknown field to the text about it.
    """
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        if describe_unknown is not None and item["type"] == "extra_forbidden":
            parts.append(describe_unknown(where))
        else:
            parts.append(f"{where}: {text}" if where else text)
    return "; ".join(parts)
