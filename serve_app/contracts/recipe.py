"""Recipe: how an image becomes its outputs, and the presets."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from serve_app.contracts.base import Contract, describe_validation_error
from serve_app.errors import InvalidRecipe

MEDIA_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
"""Media type of each output format."""


_COLOUR = re.compile(r"#[0-9a-f]{6}([0-9a-f]{2})?")


class Thumbnail(Contract):
    """A JPEG beside the result, for lists and search pages."""

    size_px: Annotated[int, Field(ge=16, le=2048)] = 300
    """Longest side in pixels."""
    quality: Annotated[int, Field(ge=1, le=100)] = 85


class Checks(Contract):
    """What a mask must pass; a mask that fails sends the image to the recipe's next model."""

    min_subject_px: Annotated[int, Field(ge=0)] = 100
    """Shortest side of the subject's bounding box in pixels; 0 accepts even an image without a
    subject, whose mask is empty."""
    min_subject_area: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Least share of the image's pixels that the subject covers; None turns the check off."""
    max_aspect_change: Annotated[float, Field(gt=1)] | None = None
    """Largest ratio between the aspects of subject and image; None turns the check off."""


class Matting(Contract):
    """How soft edges get their transparency and colours; see ``imaging.matting``."""

    method: Literal["off", "closed_form", "decontaminate"] = "off"
    """``closed_form`` estimates both, in the band where the mask is unsure; ``decontaminate`` keeps
    the mask and estimates colours alone, without the background's share."""
    foreground_above: Annotated[int, Field(ge=0, le=255)] = 240
    """Mask values above it are the subject's for certain."""
    background_below: Annotated[int, Field(ge=0, le=255)] = 10
    """Mask values below it are the background's for certain."""
    erode_px: Annotated[int, Field(ge=0, le=1000)] = 10
    """Side of the square by which both are shrunk, so that the band between them gets wider."""


class Recipe(Contract):
    """How an image becomes its outputs."""

    models: tuple[str, ...] = ()
    """Models in order of preference; empty means those that the application serves, in order."""
    post_process_mask: bool = False
    """Smooths the mask and leaves nothing half transparent, as rembg's option of this name."""
    matting: Matting = Matting()
    """An object, or its method alone: ``off``, ``closed_form`` or ``decontaminate``."""
    background: str = "transparent"
    """``transparent``, ``white``, ``black``, ``#rrggbb``, ``auto`` (black below a mean brightness
    of the subject of 128, else white), or ``#rrggbbaa``, which keeps an alpha channel."""
    format: Literal["png", "webp", "jpeg"] = "png"
    quality: Annotated[int, Field(ge=1, le=100)] = 85
    """Of WebP and JPEG."""
    png_compression: Annotated[int, Field(ge=0, le=9)] = 1
    """1: fast, and on photographs some 10 % larger than 6, which takes 15 times as long
    (docs/performance.md). The other levels are zlib's, with the best filter for each row."""
    mask_only: bool = False
    crop_to_subject: bool = False
    thumbnail: Thumbnail | None = None
    checks: Checks = Checks()

    @field_validator("matting", mode="before")
    @classmethod
    def _method_alone(cls, value: object) -> object:
        return {"method": value} if isinstance(value, str) else value

    @field_validator("background")
    @classmethod
    def _known_background(cls, value: str) -> str:
        value = value.lower()
        if value in {"transparent", "white", "black", "auto"} or _COLOUR.fullmatch(value):
            return value
        raise ValueError("must be transparent, white, black, auto, #rrggbb or #rrggbbaa")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.format == "jpeg" and self.has_alpha:
            raise ValueError("jpeg has no transparency: choose another background, or png or webp")
        return self

    @property
    def has_alpha(self) -> bool:
        """Whether the result has an alpha channel."""
        translucent = self.background == "transparent" or len(self.background) == len("#rrggbbaa")
        return translucent and not self.mask_only

    @property
    def media_type(self) -> str:
        """Media type of the result."""
        return MEDIA_TYPES[self.format]

    def canonical(self) -> str:
        """Return the one JSON form of this recipe: every field, sorted by declaration."""
        return self.model_dump_json()


PRESETS: dict[str, dict[str, Any]] = {
    "cutout": {},
    "catalog": {
        "matting": "closed_form",
        "background": "auto",
        "thumbnail": {"size_px": 300, "quality": 85},
    },
    "mask": {"mask_only": True},
}
"""Recipes by name: the fields in which each differs from the defaults."""


def parse_recipe(value: str | dict[str, Any] | None, **overrides: Any) -> Recipe:
    """Make a recipe from a preset's name or its fields.

    Args:
        value: Name of a preset, an object of recipe fields, or None for ``cutout``.
        **overrides: Fields that win over those of ``value``.

    Raises:
        InvalidRecipe: The preset is unknown, or a field is unknown or has an invalid value.
    """
    if value is None:
        value = "cutout"
    if isinstance(value, str):
        if value not in PRESETS:
            known = ", ".join(PRESETS)
            raise InvalidRecipe(f"recipe {value!r} is not a preset; the presets are {known}")
        value = PRESETS[value]
    try:
        return Recipe.model_validate({**value, **overrides})
    except ValidationError as error:
        raise InvalidRecipe(f"recipe: {describe_validation_error(error)}") from error
