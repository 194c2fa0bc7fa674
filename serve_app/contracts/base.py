"""The base class of contracts, and the text of a validation error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class Contract(BaseModel):
    """Base of the values that cross processes, frozen and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def describe_validation_error(error: ValidationError) -> str:
    """Return a pydantic error as one line, which names each invalid field and the reason."""
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        parts.append(f"{where}: {text}" if where else text)
    return "; ".join(parts)
