"""Routes that remove the background of one image, and list the models that can do so."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from serve_app.contracts.model import ModelInfo
from serve_app.contracts.outcome import Box
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
from serve_app.http.endpoint import CurrentEndpoint, RequestedTimeout
from serve_app.http.openapi_schemas import CUTOUT_BODY, CUTOUT_RESPONSES
from serve_app.http.problems import error_responses
from serve_app.http.recipe_options import (
    RecipeOptions,
    recipe_from_request,
    recipe_options_from_form,
)
from serve_app.http.uploads import is_multipart_form

router = APIRouter(tags=["images"])


_CUTOUT_PATH = "/v1/cutout"
_MODELS_PATH = "/v1/models"
PATHS = (_CUTOUT_PATH, _MODELS_PATH)
"""Paths of these routes, which web pages of the configured origins may call."""


@router.post(
    _CUTOUT_PATH,
    response_class=Response,
    openapi_extra={"requestBody": CUTOUT_BODY},
    responses={
        **CUTOUT_RESPONSES,
        **error_responses(
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
async def cut_out_image(
    request: Request,
    options: Annotated[RecipeOptions, Query()],
    endpoint: CurrentEndpoint,
    timeout_s: RequestedTimeout = None,
    accept: Annotated[
        str | None,
        Header(
            description="Media types that the client accepts. Selects PNG, WebP or JPEG if "
            "`format` is not given."
        ),
    ] = None,
    if_none_match: Annotated[
        str | None,
        Header(
            description="ETags of results that the client already has. The response is 304 if the "
            "result is one of them."
        ),
    ] = None,
) -> Response:
    """Remove the background of one image.

    Send the image as the raw body, or as the file of a multipart form. Options come from the query,
    or from fields of the form, which take precedence. The option `recipe` sets all of them at once.
    """
    async with endpoint.deadline(timeout_s):
        # If the options are in the query, invalid ones are rejected before the image is read.
        recipe = None if is_multipart_form(request) else recipe_from_request(options, accept)
        async with endpoint.receive_image(request) as upload:
            if recipe is None:
                merged = {**options.model_dump(exclude_unset=True), **upload.fields}
                recipe = recipe_from_request(recipe_options_from_form(merged), accept)
            recipe, digests = await endpoint.resolve(recipe)
            fingerprint = await asyncio.to_thread(content_fingerprint, upload.data, recipe, digests)
            headers = {
                "ETag": f'"{fingerprint}"',
                "Foreedge-Fingerprint": fingerprint,
                # Without the option `format`, this header selects the format.
                "Vary": "Accept",
            }
            if _matches_etag(if_none_match, fingerprint):
                return Response(status_code=304, headers=headers)
            return image_response(await endpoint.cut_out(upload.data, recipe), headers)


@router.get(
    _MODELS_PATH,
    response_description="The models.",
    responses=error_responses(ModelUnavailable, ReplicaLost, Overloaded, DeadlineExceeded),
)
async def list_models(endpoint: CurrentEndpoint) -> dict[str, list[ModelInfo]]:
    """List the models that are served, in order of preference."""
    return {"models": await endpoint.models()}


def image_response(rendered: Rendered, headers: dict[str, str]) -> Response:
    """Return a cut-out as a response with headers that describe it.

    Args:
        rendered: Cut-out to return.
        headers: Additional headers.
    """
    cutout = rendered.cutout
    timing = ", ".join(f"{stage};dur={ms:g}" for stage, ms in cutout.stages_ms.items())
    described = {
        "Server-Timing": timing,
        "Foreedge-Model": cutout.model,
        "Foreedge-Mask-Confidence": f"{cutout.mask_confidence:g}",
        "Foreedge-Subject": _as_header(cutout.subject),
    }
    if cutout.crop is not None:
        described["Foreedge-Crop"] = _as_header(cutout.crop)
    return Response(rendered.data, media_type=rendered.media_type, headers=described | headers)


def _as_header(box: Box) -> str:
    return f"{box.left},{box.top},{box.right},{box.bottom}"


def _matches_etag(if_none_match: str | None, fingerprint: str) -> bool:
    """Return whether a header contains an ETag, by weak comparison (RFC 9110, 13.1.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return f'"{fingerprint}"' in tags
