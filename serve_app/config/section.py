"""The base class of every section, and the types of its values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
NonEmpty = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of the configuration, frozen and strict about unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
