"""From a request's options and headers to a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.recipe import MEDIA_TYPES, PRESETS, Recipe, parse_recipe
from serve_app.errors import (
    InvalidRecipe,
    NotAcceptable,
)

_ALIASES = {"image/jpg": "image/jpeg"}


class RecipeOptions(BaseModel):
    """Query parameters, or fields of a form, that make a recipe."""

    model_config = ConfigDict(extra="forbid")

    recipe: str = Field(
        "cutout",
        description=f"A preset ({', '.join(PRESETS)}), or a recipe as a JSON object, as jobs have "
        "it; its `thumbnail` makes no difference here. The other options win over its fields.",
        examples=["cutout", '{"models": ["folio"], "background": "auto", "format": "webp"}'],
    )
    models: str | None = Field(
        None,
        description="Models in order of preference, with commas between: the next one is asked "
        "when the mask of the one before does not pass the checks. See `/v1/models`.",
        examples=["u2net,isnet-general-use"],
    )
    background: str | None = Field(
        None,
        description="`transparent`, `white`, `black`, `#rrggbb`, or `auto`: black behind a dark "
        "subject, else white; `#rrggbbaa` keeps an alpha channel. The default is that of the "
        "recipe; white where JPEG is the only format that the client accepts.",
        examples=["#f4f1ea"],
    )
    format: Literal["png", "webp", "jpeg"] | None = Field(
        None, description="Of the result. Wins over the `Accept` header."
    )
    quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="Of WebP and JPEG; 85 by default."
    )
    png_compression: Annotated[int, Field(ge=0, le=9)] | None = Field(
        None, description="zlib's level; 1 by default, which is fast."
    )
    matting: Literal["off", "closed_form", "decontaminate"] | None = Field(
        None,
        description="`closed_form` estimates the transparency and the colours of the edge, for "
        "hair and the like; costs about a second for each megapixel. `decontaminate` estimates "
        "its colours alone.",
    )
    matting_foreground_above: Annotated[int, Field(ge=0, le=255)] | None = Field(
        None, description="Mask values above it are certain to be the subject's; 240 by default."
    )
    matting_background_below: Annotated[int, Field(ge=0, le=255)] | None = Field(
        None, description="Mask values below it are certain to be the background's; 10 by default."
    )
    matting_erode_px: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        None, description="By how much what is certain is shrunk; 10 by default."
    )
    post_process_mask: bool | None = Field(
        None, description="A smooth mask in which nothing is half transparent."
    )
    mask_only: bool | None = Field(None, description="The mask as a grey image instead.")
    crop_to_subject: bool | None = Field(None, description="Nothing but the subject's box.")
    min_subject_px: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Shortest side that the subject must have, in pixels; 100 by default. 0 "
        "accepts even an image without a subject.",
    )
    min_subject_area: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Least share of the image that the subject must cover."
    )
    max_aspect_change: Annotated[float, Field(gt=1)] | None = Field(
        None, description="Largest ratio between the aspects of subject and image."
    )


def recipe_from_request(options: RecipeOptions, accept: str | None) -> Recipe:
    """Return the recipe that a request asks for, without a thumbnail: the answer is one picture.

    Args:
        options: Of the query and the form.
        accept: The ``Accept`` header; it chooses the format where nothing else does.

    Raises:
        InvalidRecipe: The recipe, or an option's value, is invalid.
        NotAcceptable: The header rules out every format.
    """
    overrides = options.model_dump(exclude_none=True)
    base = _recipe_fields(overrides.pop("recipe"))
    if "models" in overrides:
        overrides["models"] = [name.strip() for name in overrides["models"].split(",")]
    checks = {
        name: overrides.pop(name) for name in list(overrides) if name.startswith(("min_", "max_"))
    }
    known = base.get("checks", {})
    # What is no object is refused below.
    if checks and isinstance(known, dict):
        overrides["checks"] = {**known, **checks}
    matting = {
        name.removeprefix("matting_"): overrides.pop(name)
        for name in list(overrides)
        if name.startswith("matting_")
    }
    if matting or "matting" in overrides:
        overrides["matting"] = _matting(base.get("matting"), overrides.get("matting"), matting)
    if "format" not in base | overrides:
        overrides["format"] = negotiate_format(accept)
        if overrides["format"] == "jpeg" and "background" not in base | overrides:
            # A client that reads nothing but JPEG can have no transparency.
            overrides["background"] = "white"
    recipe = parse_recipe(base, **overrides)
    return recipe.model_copy(update={"thumbnail": None})


def _matting(base: object, method: str | None, fields: dict[str, Any]) -> object:
    """Return a recipe's matting with a request's options over it."""
    if isinstance(base, str):
        base = {"method": base}
    if not isinstance(base, dict | None):
        # Refused by the recipe.
        return base
    return {**(base or {}), **({"method": method} if method else {}), **fields}


def _recipe_fields(recipe: str) -> dict[str, Any]:
    if not recipe.lstrip().startswith("{"):
        if recipe not in PRESETS:
            parse_recipe(recipe)
        return dict(PRESETS[recipe])
    try:
        fields: dict[str, Any] = orjson.loads(recipe)
    except orjson.JSONDecodeError as error:
        raise InvalidRecipe(f"recipe is not JSON: {error}") from error
    return fields


def options_of(fields: dict[str, Any]) -> RecipeOptions:
    """Return the options that the fields of a form make.

    Raises:
        InvalidRecipe: A field is no option, or has an invalid value.
    """
    try:
        return RecipeOptions.model_validate(fields)
    except ValidationError as error:
        raise InvalidRecipe(describe_validation_error(error)) from error


def negotiate_format(accept: str | None) -> str:
    """Return the output format that a client likes best.

    The quality value decides; among equals the media type that is named in full, then the one that
    is named first. Where the client does not care it is PNG.

    Args:
        accept: The ``Accept`` header (RFC 9110, 12.5.1).

    Raises:
        NotAcceptable: The header rules out every format.
    """
    if not accept or not accept.strip():
        return next(iter(MEDIA_TYPES))
    ranges = [_media_range(item) for item in accept.split(",") if item.strip()]
    ranked = []
    for name, media_type in MEDIA_TYPES.items():
        kind = media_type.split("/")[0]
        specificity = {media_type: 2, f"{kind}/*": 1, "*/*": 0}
        matches = [
            (specificity[pattern], quality, -position)
            for position, (pattern, quality) in enumerate(ranges)
            if pattern in specificity
        ]
        if matches:
            specific, quality, position = max(matches)
            ranked.append(((quality, specific, position), name))
    if not ranked or max(rank for rank, _ in ranked)[0] == 0:
        known = ", ".join(MEDIA_TYPES.values())
        raise NotAcceptable(f"results are {known}; the request's Accept header takes none of them")
    best = max(rank for rank, _ in ranked)
    return next(name for rank, name in ranked if rank == best)


def _media_range(item: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                quality = min(1.0, max(0.0, float(value)))
            except ValueError:
                quality = 1.0
    return _ALIASES.get(name, name), quality
