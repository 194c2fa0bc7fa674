"""The route that removes the background of one image."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response

from serve_app.contracts.model import ModelInfo
from serve_app.contracts.recipe import MEDIA_TYPES
from serve_app.contracts.rendered import Rendered
from serve_app.contracts.result_keys import content_fingerprint
from serve_app.errors import (
    CorruptImage,
    DeadlineExceeded,
    EmptyImage,
    ImageTooLarge,
    InvalidRecipe,
    InvalidRequest,
    ModelUnavailable,
    NoSubject,
    NotAcceptable,
    Overloaded,
    ReplicaLost,
    SubjectTooSmall,
    UnknownModel,
    UnsupportedFormat,
)
from serve_app.http.endpoint import AskedTimeout, CurrentEndpoint
from serve_app.http.problems import responses
from serve_app.http.recipe_options import RecipeOptions, options_of, recipe_from_request
from serve_app.http.uploads import is_form

router = APIRouter()

_BINARY = {"type": "string", "format": "binary"}
_READ_TYPES = ("image/jpeg", "image/png", "image/webp", "image/tiff", "image/bmp", "image/gif")


def _text_header(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


_HEADERS = {
    "ETag": _text_header("The fingerprint, for `If-None-Match`.", '"3f2a90c1b7d84e55a01f"'),
    "Foreedge-Fingerprint": _text_header(
        "Name of the result: the same for the same image, recipe and models.",
        "3f2a90c1b7d84e55a01f",
    ),
    "Foreedge-Model": _text_header("Model whose mask passed the checks.", "folio"),
    "Foreedge-Mask-Confidence": _text_header(
        "Share of the subject that the model was decided about, 0 to 1.", "0.982"
    ),
    "Foreedge-Subject": _text_header(
        "Box of the subject in the upright source: left, top, right, bottom in pixels; the last "
        "two are exclusive.",
        "112,40,910,1160",
    ),
    "Server-Timing": _text_header(
        "Milliseconds of each stage.", "decode;dur=10.1, resize;dur=4.2, segment;dur=12.8"
    ),
}
_FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {**_BINARY, "description": "The image; the part may have any name."},
        "recipe": {
            "type": "string",
            "description": "A preset's name or a JSON object; may also be a file.",
        },
    },
    "additionalProperties": {"type": "string", "description": "Any option of the query."},
}
_BODY = {
    "required": True,
    "description": "The image file itself, whatever its Content-Type, or a form with it.",
    "content": {
        **{media_type: {"schema": _BINARY} for media_type in _READ_TYPES},
        "application/octet-stream": {"schema": _BINARY},
        "multipart/form-data": {"schema": _FORM_SCHEMA},
    },
}


@router.post(
    "/v1/cutout",
    tags=["images"],
    response_class=Response,
    openapi_extra={"requestBody": _BODY},
    responses={
        200: {
            "description": "The cut-out.",
            "headers": _HEADERS,
            "content": {media_type: {"schema": _BINARY} for media_type in MEDIA_TYPES.values()},
        },
        304: {"description": "The client has this result; nothing was computed."},
        **responses(
            InvalidRequest,
            InvalidRecipe,
            UnknownModel,
            NotAcceptable,
            ImageTooLarge,
            UnsupportedFormat,
            EmptyImage,
            CorruptImage,
            NoSubject,
            SubjectTooSmall,
            Overloaded,
            ModelUnavailable,
            ReplicaLost,
            DeadlineExceeded,
        ),
    },
)
async def cutout(
    request: Request,
    options: Annotated[RecipeOptions, Query()],
    endpoint: CurrentEndpoint,
    timeout_s: AskedTimeout = None,
    accept: Annotated[
        str | None,
        Header(description="Chooses the format where `format` does not: PNG, WebP or JPEG."),
    ] = None,
    if_none_match: Annotated[
        str | None,
        Header(description="ETags of results that the client has: 304 where it is one of them."),
    ] = None,
) -> Response:
    """Remove the background of one image.

    The image is the raw body, or the file of a multipart form. Options come from the query, from
    the form's fields (which win), or from a recipe as a whole.
    """
    async with endpoint.deadline(timeout_s):
        # Before the upload, as far as it can be: what is invalid anyway is not worth reading.
        recipe = None if is_form(request) else recipe_from_request(options, accept)
        async with endpoint.upload(request) as upload:
            if recipe is None:
                merged = {**options.model_dump(exclude_unset=True), **upload.fields}
                recipe = recipe_from_request(options_of(merged), accept)
            recipe, digests = await endpoint.resolve(recipe)
            name = await asyncio.to_thread(content_fingerprint, upload.data, recipe, digests)
            known = {"ETag": f'"{name}"', "Foreedge-Fingerprint": name}
            if _matches(if_none_match, name):
                return Response(status_code=304, headers=known)
            return answer(await endpoint.cut_out(upload.data, recipe), known)


@router.get(
    "/v1/models",
    tags=["images"],
    response_description="The models.",
    responses=responses(ModelUnavailable, ReplicaLost, Overloaded, DeadlineExceeded),
)
async def models(endpoint: CurrentEndpoint) -> dict[str, list[ModelInfo]]:
    """Return the models that are served, in the order of preference."""
    return {"models": await endpoint.models()}


def answer(rendered: Rendered, headers: dict[str, str]) -> Response:
    """Return a cut-out as a response.

    Args:
        rendered: The cut-out.
        headers: More headers than those that tell about it.
    """
    cutout = rendered.cutout
    box = cutout.subject
    timing = ", ".join(f"{stage};dur={ms:g}" for stage, ms in cutout.stages_ms.items())
    about = {
        "Server-Timing": timing,
        "Foreedge-Model": cutout.model,
        "Foreedge-Mask-Confidence": f"{cutout.mask_confidence:g}",
        "Foreedge-Subject": f"{box.left},{box.top},{box.right},{box.bottom}",
    }
    return Response(rendered.data, media_type=rendered.media_type, headers=about | headers)


def _matches(if_none_match: str | None, name: str) -> bool:
    """Return whether a header names an ETag; weak comparison, as RFC 9110 has it (13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return f'"{name}"' in tags
