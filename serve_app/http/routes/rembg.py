"""Routes compatible with rembg's own server (``rembg s``): clients only change the address.

docs/rembg.md lists the differences, with the reason for each.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from fastapi import APIRouter, Request, Response

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
from serve_app.http.endpoint import CurrentEndpoint, Endpoint, RequestedTimeout
from serve_app.http.openapi_schemas import REMBG_BODY, REMBG_QUERY, REMBG_RESPONSES, REMBG_URL
from serve_app.http.problems import error_responses
from serve_app.http.rembg_parameters import merge_parameters, recipe_from_rembg
from serve_app.http.routes.cutout import image_response
from serve_app.http.uploads import REMBG_FORM
from serve_app.http.url_fetch import fetch_image

REMOVE_PATH = "/api/remove"

router = APIRouter(tags=["rembg"])

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
_FETCH_ERRORS = (SourceNotAllowed, SourceForbidden, SourceNotFound, StorageUnavailable)


@router.post(
    REMOVE_PATH,
    response_class=Response,
    responses={**REMBG_RESPONSES, **error_responses(*_ERRORS)},
    openapi_extra={"parameters": REMBG_QUERY, "requestBody": REMBG_BODY},
)
async def remove_from_upload(
    request: Request, endpoint: CurrentEndpoint, timeout_s: RequestedTimeout = None
) -> Response:
    """Remove the background of an image in a form, as rembg's server does.

    Parameters come from the form or the query. Of other files in the form, none counts.
    """
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise InvalidParameters("file: is missing. Send the image as multipart/form-data.")
    async with endpoint.deadline(timeout_s), AsyncExitStack() as stack:
        try:
            receiving = endpoint.receive_image(request, REMBG_FORM)
            upload = await stack.enter_async_context(receiving)
        except (UnsupportedFormat, EmptyImage) as error:
            raise InvalidParameters(f"file: {error.message}") from error
        served = endpoint.config.served_models
        fields = merge_parameters(upload.fields, request.query_params, served)
        return await _remove_background(upload.data, fields, endpoint)


@router.get(
    REMOVE_PATH,
    response_class=Response,
    responses={**REMBG_RESPONSES, **error_responses(*_ERRORS, *_FETCH_ERRORS)},
    openapi_extra={"parameters": [REMBG_URL, *REMBG_QUERY]},
)
async def remove_from_url(
    request: Request, endpoint: CurrentEndpoint, timeout_s: RequestedTimeout = None
) -> Response:
    """Remove the background of an image that this server fetches.

    The server fetches from the hosts that its operator allows, and from none by default.
    """
    config = endpoint.config
    fields = dict(request.query_params)
    url = fields.pop("url", "")
    if not url:
        raise InvalidParameters("url: is missing")
    if not config.http.fetch_hosts:
        raise SourceNotAllowed(
            "This server does not fetch images by URL. Its operator can allow hosts "
            "(http.fetch_hosts)."
        )
    async with endpoint.deadline(timeout_s):
        # Invalid parameters are rejected before anything is fetched.
        recipe_from_rembg(fields, config.served_models)
        with endpoint.buffer.reservation() as reserve:
            with endpoint.uploads.take():
                data = await fetch_image(url, config.http, config.limits.max_bytes, reserve)
            return await _remove_background(data, fields, endpoint)


async def _remove_background(data: bytes, fields: dict[str, str], endpoint: Endpoint) -> Response:
    recipe = recipe_from_rembg(fields, endpoint.config.served_models)
    return image_response(await endpoint.cut_out(data, recipe), {})
