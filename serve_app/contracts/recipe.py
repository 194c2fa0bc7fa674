"""Recipe: the description of a cut-out, and the presets."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from serve_app.contracts.base import Contract, describe_validation_error
from serve_app.errors import InvalidRecipe

MEDIA_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
"""Media type of each output format."""

_EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg"}
"""Extension of the files of each output format."""

_COLOUR = re.compile(r"#[0-9a-f]{6}([0-9a-f]{2})?")


class Thumbnail(Contract):
    """A small JPEG next to the result, for lists and search pages."""

    size_px: Annotated[int, Field(ge=16, le=2048)] = 300
    """Longest side of the thumbnail, in pixels."""
    quality: Annotated[int, Field(ge=1, le=100)] = 85
    """JPEG quality of the thumbnail, from 1 to 100."""


class Checks(Contract):
    """Conditions that a mask must meet. If it fails one, the recipe's next model is tried."""

    min_subject_px: Annotated[int, Field(ge=0)] = 100
    """Minimum length of the shorter side of the subject's bounding box, in pixels. 0 accepts even
    an image without a subject, whose mask is empty."""
    min_subject_area: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Minimum share of the image's pixels that the subject covers. None turns the check off."""
    max_aspect_change: Annotated[float, Field(gt=1)] | None = None
    """Maximum ratio between the aspect ratios of the subject and the image. None turns the check
    off."""
    min_confidence: Annotated[float, Field(gt=0, le=1)] | None = None
    """Minimum confidence of the mask, 0 to 1 (``imaging.mask.mask_confidence``). If the mask of a
    model is below it, the next model is asked. The mask of the last model is taken whatever its
    confidence is. None turns the check off."""


class Matting(Contract):
    """How soft edges get their transparency and colours (``imaging.matting``)."""

    method: Literal["off", "closed_form", "decontaminate"] = "off"
    """Method of matting. ``closed_form`` estimates transparency and colours in the band of pixels
    that the mask leaves uncertain. ``decontaminate`` keeps the mask and only removes the
    background's share from the colours."""
    foreground_above: Annotated[int, Field(ge=0, le=255)] = 240
    """Mask value, from 0 to 255, above which a pixel certainly belongs to the subject."""
    background_below: Annotated[int, Field(ge=0, le=255)] = 10
    """Mask value, from 0 to 255, below which a pixel certainly belongs to the background."""
    erode_px: Annotated[int, Field(ge=0, le=1000)] = 10
    """Side, in pixels, of the square by which both certain areas are eroded, which widens the
    uncertain band between them."""


class Recipe(Contract):
    """The description of a cut-out: models, edges, background and file format."""

    models: tuple[str, ...] = ()
    """Models in order of preference. If empty, all models that the application serves, in its
    order."""
    post_process_mask: bool = False
    """Whether the mask is smoothed and loses its partial transparency, as with rembg's option of
    the same name."""
    matting: Matting = Matting()
    """Matting of soft edges, as an object or as the name of its method alone: ``off``,
    ``closed_form`` or ``decontaminate``."""
    background: str = "transparent"
    """Background of the result: ``transparent``, ``white``, ``black``, ``#rrggbb``, ``#rrggbbaa``
    (which keeps an alpha channel), or ``auto`` (black if the subject's mean brightness is below
    128, otherwise white)."""
    format: Literal["png", "webp", "jpeg"] = "png"
    """File format of the result."""
    quality: Annotated[int, Field(ge=1, le=100)] = 85
    """Quality of a WebP or JPEG result, from 1 to 100."""
    png_compression: Annotated[int, Field(ge=0, le=9)] = 1
    """Compression level of a PNG result, from 0 to 9. Level 1 is fast, and its files are about 10 %
    larger than those of level 6, which takes 15 times as long (docs/performance.md)."""
    mask_only: bool = False
    """Whether the result is the mask itself, as a grey image."""
    crop_to_subject: bool = False
    """Whether the result is cropped to all that is visible, with a margin of one pixel."""
    keep_metadata: bool = False
    """Whether the result keeps the EXIF data of the image, without orientation, thumbnail, place
    and maker's note."""
    thumbnail: Thumbnail | None = None
    """Thumbnail of the result. None makes none."""
    checks: Checks = Checks()
    """Conditions that the mask must meet."""

    @field_validator("matting", mode="before")
    @classmethod
    def _expand_method(cls, value: object) -> object:
        return {"method": value} if isinstance(value, str) else value

    @field_validator("background")
    @classmethod
    def _check_background(cls, value: str) -> str:
        value = value.lower()
        if value in {"transparent", "white", "black", "auto"} or _COLOUR.fullmatch(value):
            return value
        raise ValueError("must be transparent, white, black, auto, #rrggbb or #rrggbbaa")

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        if self.format == "jpeg" and self.has_alpha:
            raise ValueError(
                "jpeg has no transparency: choose another background, or the format png or webp"
            )
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

    @property
    def extension(self) -> str:
        """Extension of a file of the result, without a dot."""
        return _EXTENSIONS[self.format]

    def stored(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as manifests and messages carry them.

        An earlier version refuses fields that it does not know. It reads this form unless the
        recipe uses one of them.
        """
        return self.model_dump(mode="json", exclude_defaults=True)

    def canonical(self) -> str:
        """Return this recipe's only JSON form: the fields that differ from their defaults.

        They come in the order of declaration. A field that is added later leaves the form, and so
        the keys of results, as they are. A changed default needs another ``PIPELINE_VERSION``.
        """
        return self.model_dump_json(exclude_defaults=True)


PRESETS: dict[str, dict[str, Any]] = {
    "cutout": {},
    "catalog": {
        "matting": "closed_form",
        "background": "auto",
        "thumbnail": {"size_px": 300, "quality": 85},
    },
    "mask": {"mask_only": True},
}
"""Fields in which each preset differs from the default recipe, by the preset's name."""


def parse_recipe(value: str | dict[str, Any] | None, **overrides: Any) -> Recipe:
    """Return the recipe that a preset's name or an object of fields describes.

    Args:
        value: Name of a preset, an object of recipe fields, or None for ``cutout``.
        **overrides: Fields that replace those of ``value``.

    Raises:
        InvalidRecipe: The preset is unknown, or a field is unknown or has an invalid value.
    """
    if value is None:
        value = "cutout"
    if isinstance(value, str):
        if value not in PRESETS:
            known = ", ".join(PRESETS)
            raise InvalidRecipe(f"recipe {value!r} is not a preset; choose from {known}")
        if not overrides:
            return _preset(value)
        value = PRESETS[value]
    try:
        return Recipe.model_validate({**value, **overrides})
    except ValidationError as error:
        raise InvalidRecipe(f"recipe: {describe_validation_error(error)}") from error


@cache
def _preset(name: str) -> Recipe:
    """Return the recipe of a preset, which most messages name. A recipe is frozen."""
    return Recipe.model_validate(PRESETS[name])
