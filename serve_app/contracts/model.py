"""What other deployments know of a model, and how its masks are requested."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from serve_app.contracts.base import Contract
from serve_app.contracts.recipe import Recipe
from serve_app.errors import (
    UnknownModel,
)


class ModelInfo(Contract):
    """A model that is being served."""

    name: str
    size_px: int
    """Side of its square input."""
    sha256: str
    """Of its file."""


class Segmenters(Protocol):
    """The models that are being served, by name."""

    async def describe(self, name: str) -> ModelInfo:
        """Return what is known of a model."""
        ...

    async def segment(self, name: str, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the mask, uint8 [S, S], of an image, uint8 [S, S, 3]."""
        ...


def requested_models(recipe: Recipe, served: tuple[str, ...]) -> tuple[str, ...]:
    """Return the models that a recipe asks for, in its order.

    Args:
        recipe: Asks for all of those served where it names none.
        served: By this application, in the order of preference.

    Raises:
        UnknownModel: One is not served.
    """
    for name in recipe.models:
        if name not in served:
            raise UnknownModel(f"model {name!r} is not served here; ask for {', '.join(served)}")
    return recipe.models or served
