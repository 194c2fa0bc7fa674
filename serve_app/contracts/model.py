"""Facts about a served model, and the interface through which its masks are requested."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from serve_app.contracts.base import Contract
from serve_app.contracts.precision import Engine, Precision
from serve_app.contracts.priority import Priority
from serve_app.contracts.recipe import Recipe
from serve_app.errors import UnknownModel


class ModelInfo(Contract):
    """Facts about a model that is being served."""

    name: str
    """Name of the model."""
    size_px: int
    """Side of the model's square input, in pixels."""
    sha256: str
    """SHA-256 of the model file, as hexadecimal digits."""
    engine: Engine = "onnxruntime"
    """Library that runs the model."""
    precision: Precision = "float32"
    """Precision that it runs in."""
    derived_sha256: str | None = None
    """SHA-256 of the derived file that runs, as hexadecimal digits. None if it is the model's."""
    chosen_because: str = "It is the default."
    """Why the model runs with this engine and precision."""
    refused: str | None = None
    """Why the engine and precision that were asked for do not run it, or why a derived file does
    not count that ``auto`` would have tried. None if nothing was refused."""

    @property
    def result_digest(self) -> str:
        """What results of this model depend on: the file, the engine and the precision.

        It is the SHA-256 alone for ONNX Runtime in float32, as it was before there were others. A
        derived file counts itself, since other images make another one.
        """
        if (self.engine, self.precision) == ("onnxruntime", "float32"):
            return self.sha256
        parts = (self.sha256, self.engine, self.precision, self.derived_sha256)
        return " ".join(part for part in parts if part is not None)


class Segmenters(Protocol):
    """Access to the served models by name."""

    async def describe(self, name: str) -> ModelInfo:
        """Return the facts about a model."""
        ...

    async def segment(
        self, name: str, image: npt.NDArray[np.uint8], priority: Priority
    ) -> npt.NDArray[np.uint8]:
        """Return the mask of an image.

        Args:
            name: Name of the model.
            image: uint8 [S, S, 3], RGB, of the model's size.
            priority: Class of the image.

        Returns:
            uint8 [S, S].
        """
        ...


def requested_models(
    recipe: Recipe, default: tuple[str, ...], served: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the models that a recipe requests, in its order of preference.

    Args:
        recipe: The recipe.
        default: Models that a recipe requests if it names none, in order of preference.
        served: All models that this application serves.

    Raises:
        UnknownModel: The recipe names a model that is not served.
    """
    for name in recipe.models:
        if name not in served:
            raise UnknownModel(
                f"model {name!r} is not served here; choose from {', '.join(served)}"
            )
    return recipe.models or default
