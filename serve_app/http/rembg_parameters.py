"""The parameters of rembg's HTTP API, and the recipes that they stand for.

Derived from rembg 2.0.86. A parameter that its server rejects is rejected here with the same
status, 422.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, Field, ValidationError

from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.recipe import Checks, Matting, Recipe
from serve_app.errors import InvalidParameters

_FIXED_EXTRAS = {
    "alpha_matting",
    "alpha_matting_background_threshold",
    "alpha_matting_erode_size",
    "alpha_matting_foreground_threshold",
    "bgcolor",
    "data",
    "decontaminate",
    "only_mask",
    "post_process_mask",
    "session",
    "vitmatte",
}
"""Members of ``extras`` that rembg's server cannot take either: it sets them from the parameters.
All others are options of models that are not served, or of the server's own files."""

_IN_QUERY = {"bgc", "extras"}
"""Parameters that rembg reads from the query of a ``POST``. It reads all others from the form."""

_MAX_ERODE_PX = 1_000
"""Largest erosion of a recipe, in pixels. rembg has no limit, and runs out of memory instead."""


class RembgParameters(BaseModel):
    """Parameters of ``/api/remove``. Unknown parameters are ignored, as by rembg."""

    model: str | None = Field(
        None,
        description="Model to use. `/v1/models` lists all models. The default is the first one.",
    )
    a: bool = Field(False, description="Whether to apply closed-form matting to the edges.")
    af: Annotated[int, Field(ge=0, le=255)] = Field(
        240,
        description="Matting: mask value above which a pixel certainly belongs to the subject.",
    )
    ab: Annotated[int, Field(ge=0, le=255)] = Field(
        10,
        description="Matting: mask value below which a pixel certainly belongs to the background.",
    )
    ae: Annotated[int, Field(ge=0)] = Field(
        10, description="Matting: size of the erosion, in pixels. Above 1,000 it counts as 1,000."
    )
    om: bool = Field(
        False, description="Whether to return only the mask, as the model produces it."
    )
    ppm: bool = Field(
        False, description="Whether to smooth the mask and remove its half-transparent areas."
    )
    dc: bool = Field(
        False, description="Whether to remove the colour of the background from the edges."
    )
    vm: bool = Field(
        False, description="Whether to use ViTMatte. It is not available on this server."
    )
    bgc: str | None = Field(
        None,
        description="Background colour: red, green, blue and alpha from 0 to 255, separated by "
        "commas.",
    )
    extras: str | None = Field(
        None,
        description="Further options as a JSON object. They have no effect on the models of this "
        "server. Those that repeat another parameter are rejected.",
    )


def merge_parameters(
    form: Mapping[str, str], query: Mapping[str, str], served: tuple[str, ...]
) -> dict[str, str]:
    """Return the parameters of a ``POST`` with a form.

    rembg reads each parameter from one place. A parameter in the other place counts as well, unless
    it is in both, or invalid: rembg never looks at it, so it cannot fail there. A parameter without
    a value counts as not given.

    Args:
        form: Fields of the form.
        query: Parameters of the query.
        served: Names of the models that the application serves.
    """
    read_by_rembg = {name: text for name, text in form.items() if text and name not in _IN_QUERY}
    read_by_rembg |= {name: text for name, text in query.items() if text and name in _IN_QUERY}
    merged = {
        name: text
        for name, text in {**query, **form}.items()
        if text and name not in read_by_rembg and _is_valid(name, text, served)
    }
    return merged | read_by_rembg


def recipe_from_rembg(fields: dict[str, str], served: tuple[str, ...]) -> Recipe:
    """Return the recipe that rembg's parameters stand for.

    Args:
        fields: Parameters from the query or the form.
        served: Names of the models that the application serves.

    Raises:
        InvalidParameters: A parameter has an invalid value, or is not supported.
    """
    try:
        parameters = RembgParameters.model_validate(fields)
    except ValidationError as error:
        raise InvalidParameters(describe_validation_error(error)) from error
    if parameters.model is not None and parameters.model not in served:
        raise InvalidParameters(
            f"model: {parameters.model!r} is not served. Choose one of {', '.join(served)}."
        )
    if parameters.vm:
        raise InvalidParameters(
            "vm: ViTMatte is not available. Use a=true for closed-form matting."
        )
    _check_extras(parameters.extras)
    matting = Matting(
        method=_matting_method(parameters),
        foreground_above=parameters.af,
        background_below=parameters.ab,
        erode_px=min(parameters.ae, _MAX_ERODE_PX),
    )
    return Recipe(
        models=(parameters.model or served[0],),
        matting=matting,
        mask_only=parameters.om,
        post_process_mask=parameters.ppm,
        background=_background(parameters.bgc) if parameters.bgc else "transparent",
        # rembg returns every result, even an empty one.
        checks=Checks(min_subject_px=0),
    )


def _is_valid(name: str, text: str, served: tuple[str, ...]) -> bool:
    try:
        recipe_from_rembg({name: text}, served)
    except InvalidParameters:
        return False
    return True


def _matting_method(parameters: RembgParameters) -> Literal["off", "closed_form", "decontaminate"]:
    if parameters.om:
        # As in rembg, the mask is returned as the model produces it.
        return "off"
    if parameters.a:
        # Closed-form matting removes the colour of the background as well.
        return "closed_form"
    return "decontaminate" if parameters.dc else "off"


def _background(bgc: str) -> str:
    try:
        channels = [max(0, min(255, int(part))) for part in bgc.split(",")]
    except ValueError as error:
        raise InvalidParameters(f"bgc: {error}") from error
    if len(channels) not in {3, 4}:
        raise InvalidParameters("bgc: must be red,green,blue,alpha, each from 0 to 255")
    red, green, blue, alpha = [*channels, 255][:4]
    return f"#{red:02x}{green:02x}{blue:02x}{alpha:02x}"


def _check_extras(extras: str | None) -> None:
    try:
        found = orjson.loads(extras or "{}")
    except orjson.JSONDecodeError:
        # rembg ignores extras that are not JSON.
        return
    fixed = sorted(_FIXED_EXTRAS.intersection(found)) if isinstance(found, dict) else []
    if fixed:
        raise InvalidParameters(
            f"extras: {', '.join(fixed)} cannot be set there. Use the parameter instead."
        )
