"""Recipe options: from the query, form fields and headers of a request to a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.recipe import MEDIA_TYPES, PRESETS, Recipe, parse_recipe
from serve_app.errors import InvalidRecipe, NotAcceptable

_MEDIA_TYPE_ALIASES = {"image/jpg": "image/jpeg"}


class RecipeOptions(BaseModel):
    """Query parameters, or fields of a form, that describe a recipe."""

    model_config = ConfigDict(extra="forbid")

    recipe: str = Field(
        "cutout",
        description=f"Name of a preset ({', '.join(PRESETS)}), or a recipe as a JSON object, as in "
        "a job. The other options override its fields. Its `thumbnail` is ignored.",
        examples=["cutout", '{"models": ["folio"], "background": "auto", "format": "webp"}'],
    )
    models: str | None = Field(
        None,
        description="Models in order of preference, separated by commas. The next model is used "
        "if the mask of the previous one does not pass the checks. `/v1/models` lists all models.",
        examples=["u2net,isnet-general-use"],
    )
    background: str | None = Field(
        None,
        description="Background of the result: `transparent`, `white`, `black`, `#rrggbb`, "
        "`#rrggbbaa`, or `auto`, which is black behind a dark subject and white otherwise. The "
        "default is that of the recipe, or white if JPEG is the only format that the client "
        "accepts.",
        examples=["#f4f1ea"],
    )
    format: Literal["png", "webp", "jpeg"] | None = Field(
        None, description="Format of the result. Takes precedence over the `Accept` header."
    )
    quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="Quality of a WebP or JPEG result. The default is 85."
    )
    png_compression: Annotated[int, Field(ge=0, le=9)] | None = Field(
        None, description="zlib compression level of a PNG result. The default is 1, which is fast."
    )
    matting: Literal["off", "closed_form", "decontaminate"] | None = Field(
        None,
        description="Treatment of the edges. `closed_form` estimates their transparency and "
        "colours, for hair and fur, and takes about a second per megapixel. `decontaminate` "
        "estimates their colours only.",
    )
    matting_foreground_above: Annotated[int, Field(ge=0, le=255)] | None = Field(
        None,
        description="Mask value above which a pixel certainly belongs to the subject. "
        "The default is 240.",
    )
    matting_background_below: Annotated[int, Field(ge=0, le=255)] | None = Field(
        None,
        description="Mask value below which a pixel certainly belongs to the background. "
        "The default is 10.",
    )
    matting_erode_px: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        None,
        description="Pixels by which the certain areas are eroded before matting. "
        "The default is 10.",
    )
    post_process_mask: bool | None = Field(
        None, description="Whether to smooth the mask and remove its half-transparent areas."
    )
    mask_only: bool | None = Field(
        None, description="Whether to return the mask as a greyscale image instead of the cut-out."
    )
    crop_to_subject: bool | None = Field(
        None,
        description="Whether to crop the result to all that is visible, with a margin of one "
        "pixel. The header `Foreedge-Crop` says what part of the image that is.",
    )
    keep_metadata: bool | None = Field(
        None,
        description="Whether the result keeps the EXIF data of the image, without orientation, "
        "thumbnail, place and maker's note.",
    )
    min_subject_px: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Minimum length of the subject's shorter side, in pixels. The default is 100. "
        "With 0, an image without a subject is accepted as well.",
    )
    min_subject_area: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Minimum share of the image that the subject covers."
    )
    max_aspect_change: Annotated[float, Field(gt=1)] | None = Field(
        None,
        description="Maximum ratio between the aspect ratio of the subject and that of the image.",
    )
    min_confidence: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Minimum confidence of the mask. If the mask of a model is below it, the next "
        "model is asked. The mask of the last model is taken whatever its confidence is.",
    )


def recipe_from_request(options: RecipeOptions, accept: str | None) -> Recipe:
    """Return the recipe that a request describes, without a thumbnail: the result is one image.

    Args:
        options: Options from the query and the form.
        accept: ``Accept`` header. It selects the format if the options do not.

    Raises:
        InvalidRecipe: The recipe or the value of an option is invalid.
        NotAcceptable: The header rules out every format.
    """
    overrides = options.model_dump(exclude_none=True)
    base = _recipe_fields(overrides.pop("recipe"))
    if "models" in overrides:
        overrides["models"] = [name.strip() for name in overrides["models"].split(",")]
    checks = {
        name: overrides.pop(name) for name in list(overrides) if name.startswith(("min_", "max_"))
    }
    base_checks = base.get("checks", {})
    # parse_recipe rejects checks that are not an object.
    if checks and isinstance(base_checks, dict):
        overrides["checks"] = {**base_checks, **checks}
    matting = {
        name.removeprefix("matting_"): overrides.pop(name)
        for name in list(overrides)
        if name.startswith("matting_")
    }
    if matting or "matting" in overrides:
        overrides["matting"] = _merge_matting(
            base.get("matting"), overrides.get("matting"), matting
        )
    if "format" not in base | overrides:
        overrides["format"] = negotiate_format(accept)
        if overrides["format"] == "jpeg" and "background" not in base | overrides:
            # JPEG has no transparency.
            overrides["background"] = "white"
    recipe = parse_recipe(base, **overrides)
    return recipe.model_copy(update={"thumbnail": None})


def recipe_options_from_form(fields: dict[str, Any]) -> RecipeOptions:
    """Return the options that the fields of a form describe.

    Raises:
        InvalidRecipe: A field is not an option, or has an invalid value.
    """
    try:
        return RecipeOptions.model_validate(fields)
    except ValidationError as error:
        raise InvalidRecipe(describe_validation_error(error)) from error


def negotiate_format(accept: str | None) -> str:
    """Return the output format that a client prefers.

    The format with the highest quality value wins. Among equals, a media type that is named in full
    comes before a wildcard, and then the first one named. Without a preference the format is PNG.

    Args:
        accept: ``Accept`` header (RFC 9110, 12.5.1).

    Raises:
        NotAcceptable: The header rules out every format.
    """
    if not accept or not accept.strip():
        return next(iter(MEDIA_TYPES))
    ranges = [_parse_media_range(item) for item in accept.split(",") if item.strip()]
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
        available = ", ".join(MEDIA_TYPES.values())
        raise NotAcceptable(
            f"The Accept header of the request allows none of the available formats: {available}."
        )
    best = max(rank for rank, _ in ranked)
    return next(name for rank, name in ranked if rank == best)


def _merge_matting(base: object, method: str | None, fields: dict[str, Any]) -> object:
    """Return the matting of a recipe with the options of a request applied."""
    if isinstance(base, str):
        base = {"method": base}
    if not isinstance(base, dict | None):
        # parse_recipe rejects it.
        return base
    return {**(base or {}), **({"method": method} if method else {}), **fields}


def _recipe_fields(recipe: str) -> dict[str, Any]:
    if not recipe.lstrip().startswith("{"):
        if recipe not in PRESETS:
            # Raises the error that names the presets.
            parse_recipe(recipe)
        return dict(PRESETS[recipe])
    try:
        fields: dict[str, Any] = orjson.loads(recipe)
    except orjson.JSONDecodeError as error:
        raise InvalidRecipe(f"recipe: is not valid JSON: {error}") from error
    return fields


def _parse_media_range(item: str) -> tuple[str, float]:
    """Return the media type and the quality value of one item of an ``Accept`` header."""
    name, *parameters = (part.strip().lower() for part in item.split(";"))
    quality = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                quality = min(1.0, max(0.0, float(value)))
            except ValueError:
                quality = 1.0
    return _MEDIA_TYPE_ALIASES.get(name, name), quality
