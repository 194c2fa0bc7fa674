"""The base class of every section, and the types of its values."""

from __future__ import annotations

from typing import Annotated, ClassVar

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NonEmpty = Annotated[str, Field(min_length=1)]


def split_list(value: object) -> object:
    """Return a list for one that is written as a text: as JSON, or with commas between its items.

    Raises:
        ValueError: The text begins like a JSON list, and is none.
    """
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [item.strip() for item in value.split(",")]
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        # Not chained: the message of the original error may quote a secret.
        raise ValueError(
            "begins like a JSON list, and is not valid JSON. Correct it, or write the items with "
            "commas between them."
        ) from None


WrittenAsText = BeforeValidator(split_list)
"""Mark of a list that may be written as a text. It needs ``NoDecode`` next to it. Otherwise the
environment may hold JSON only."""


class Section(BaseModel):
    """A part of the configuration, frozen and strict about unknown names."""

    former_names: ClassVar[frozenset[str]] = frozenset()
    """Names of settings that have another name now, and are still read."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
