"""The HTTP API of rembg's own server (``rembg s``): its clients change the address, and no more.

Read off rembg 2.0.86. A parameter that its server refuses is refused here with the same status,
422. What differs, and why, is in docs/operations.md.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, ValidationError

from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.recipe import Checks, Matting, Recipe
from serve_app.errors import (
    CorruptImage,
    DeadlineExceeded,
    EmptyImage,
    ImageTooLarge,
    InvalidParameters,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
    ReplicaLost,
    SourceForbidden,
    SourceNotAllowed,
    SourceNotFound,
    StorageUnavailable,
    UnsupportedFormat,
)
from serve_app.http.endpoint import AskedTimeout, CurrentEndpoint, Endpoint
from serve_app.http.problems import responses
from serve_app.http.routes.cutout import answer
from serve_app.http.url_fetch import fetch

PATH = "/api/remove"

router = APIRouter(tags=["rembg"])

_FIXED_EXTRAS = {"model_path"}
"""Of ``extras``, what does not count: the files of models are the server's own."""


class Parameters(BaseModel):
    """rembg's parameters; what it does not know, it ignores."""

    model: str | None = Field(
        None, description="One of those that are served (`/v1/models`); the first one by default."
    )
    a: bool = Field(False, description="Matting, closed form.")
    af: Annotated[int, Field(ge=0, le=255)] = Field(
        240, description="Matting: mask values above it are the subject's."
    )
    ab: Annotated[int, Field(ge=0, le=255)] = Field(
        10, description="Matting: mask values below it are the background's."
    )
    ae: Annotated[int, Field(ge=0, le=1000)] = Field(
        10, description="Matting: size of the erosion, in pixels."
    )
    om: bool = Field(False, description="The mask only, as the model gives it.")
    ppm: bool = Field(False, description="Post-process the mask: smooth, nothing half transparent.")
    dc: bool = Field(False, description="Decontaminate: edges lose the background's colour.")
    vm: bool = Field(False, description="ViTMatte: not available here.")
    bgc: str | None = Field(
        None, description="Background: red, green, blue and alpha, 0 to 255, with commas between."
    )
    extras: str | None = Field(
        None, description="A JSON object; `model_path` does not count, and nothing else is taken."
    )


def recipe_of(fields: dict[str, str], served: tuple[str, ...]) -> Recipe:
    """Return the recipe that rembg's parameters ask for.

    Args:
        fields: Of the query or the form.
        served: Names of the models.

    Raises:
        InvalidParameters: A parameter has an invalid value, or one that cannot be done here.
    """
    try:
        wanted = Parameters.model_validate(fields)
    except ValidationError as error:
        raise InvalidParameters(describe_validation_error(error)) from error
    if wanted.model is not None and wanted.model not in served:
        raise InvalidParameters(
            f"model: {wanted.model!r} is not served here; the models are {', '.join(served)}"
        )
    if wanted.vm:
        raise InvalidParameters("vm: ViTMatte is not available here; a=true is closed-form matting")
    _check_extras(wanted.extras)
    matting = Matting(
        # A mask is the model's own, as rembg's; and matting has decontaminated colours already.
        method="off"
        if wanted.om
        else "closed_form"
        if wanted.a
        else "decontaminate"
        if wanted.dc
        else "off",
        foreground_above=wanted.af,
        background_below=wanted.ab,
        erode_px=wanted.ae,
    )
    return Recipe(
        models=(wanted.model or served[0],),
        matting=matting,
        mask_only=wanted.om,
        post_process_mask=wanted.ppm,
        background=_background(wanted.bgc) if wanted.bgc else "transparent",
        # rembg answers with what it has: the empty picture too.
        checks=Checks(min_subject_px=0),
    )


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
        # As rembg, which goes on without them.
        return
    unknown = sorted(set(found) - _FIXED_EXTRAS) if isinstance(found, dict) else []
    if unknown:
        raise InvalidParameters(f"extras: {', '.join(unknown)} cannot be done here")


_QUERY = [
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": schema.pop("description"),
        "schema": schema,
    }
    for name, schema in Parameters.model_json_schema()["properties"].items()
]
_IMAGE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The cut-out, or the mask, as PNG.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_ERRORS = (
    InvalidRequest,
    InvalidParameters,
    ImageTooLarge,
    UnsupportedFormat,
    EmptyImage,
    CorruptImage,
    Overloaded,
    ModelUnavailable,
    ReplicaLost,
    DeadlineExceeded,
)
_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "The image."},
        **{parameter["name"]: parameter["schema"] for parameter in _QUERY},
    },
}


@router.post(
    PATH,
    response_class=Response,
    responses={**_IMAGE, **responses(*_ERRORS)},
    openapi_extra={
        "parameters": _QUERY,
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}},
    },
)
async def remove_from_upload(
    request: Request, endpoint: CurrentEndpoint, timeout_s: AskedTimeout = None
) -> Response:
    """Remove the background of the image in a form, as rembg's server does.

    Parameters come from the form or from the query; those of the form win.
    """
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise InvalidParameters("file: is missing; send the image as multipart/form-data")
    async with endpoint.deadline(timeout_s), AsyncExitStack() as stack:
        try:
            upload = await stack.enter_async_context(endpoint.upload(request))
        except (UnsupportedFormat, EmptyImage) as error:
            raise InvalidParameters(f"file: {error.message}") from error
        fields = {**request.query_params, **upload.fields}
        return await _remove(upload.data, fields, endpoint)


@router.get(
    PATH,
    response_class=Response,
    responses={
        **_IMAGE,
        **responses(
            *_ERRORS, SourceNotAllowed, SourceForbidden, SourceNotFound, StorageUnavailable
        ),
    },
    openapi_extra={
        "parameters": [
            {
                "name": "url",
                "in": "query",
                "required": True,
                "description": "Of the image: http or https, on a host of `http.fetch_hosts`.",
                "schema": {"type": "string"},
            },
            *_QUERY,
        ]
    },
)
async def remove_from_url(
    request: Request, endpoint: CurrentEndpoint, timeout_s: AskedTimeout = None
) -> Response:
    """Remove the background of an image that this server fetches, where that is configured."""
    config = endpoint.config
    fields = dict(request.query_params)
    url = fields.pop("url", "")
    if not url:
        raise InvalidParameters("url: is missing")
    if not config.http.fetch_hosts:
        raise SourceNotAllowed("this endpoint fetches no URL (http.fetch_hosts)")
    async with endpoint.deadline(timeout_s):
        recipe_of(fields, config.models)
        with endpoint.buffer.open() as hold:
            with endpoint.uploads.take():
                data = await fetch(url, config.http, config.limits.max_bytes, hold)
            return await _remove(data, fields, endpoint)


async def _remove(data: bytes, fields: dict[str, str], endpoint: Endpoint) -> Response:
    recipe = recipe_of(fields, endpoint.config.models)
    return answer(await endpoint.cut_out(data, recipe), {})
