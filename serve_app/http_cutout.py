"""The route that removes the background of one image."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from serve_app.cutout import Rendered
from serve_app.http_endpoint import CurrentEndpoint
from serve_app.http_requests import Options, make_recipe, options_of, read_upload

router = APIRouter()


@router.post("/v1/cutout", response_class=Response, responses={200: {"content": {"image/*": {}}}})
async def cutout(
    request: Request, options: Annotated[Options, Query()], endpoint: CurrentEndpoint
) -> Response:
    """Remove the background of one image: raw body, or a multipart form with one file."""
    async with endpoint.place():
        recipe = make_recipe(options, request.headers.get("accept"))
        data, fields = await read_upload(request, endpoint.config.limits.max_bytes)
        if fields:
            merged = {**options.model_dump(exclude_unset=True), **fields}
            recipe = make_recipe(options_of(merged), request.headers.get("accept"))
        return answer(await endpoint.cut_out(data, recipe))


def answer(rendered: Rendered) -> Response:
    """Return a cut-out as a response."""
    cutout = rendered.cutout
    box = cutout.subject
    timing = ", ".join(f"{stage};dur={ms:g}" for stage, ms in cutout.stages_ms.items())
    headers = {
        "Server-Timing": timing,
        "Foreedge-Model": cutout.model,
        "Foreedge-Mask-Confidence": f"{cutout.mask_confidence:g}",
        "Foreedge-Subject": f"{box.left},{box.top},{box.right},{box.bottom}",
    }
    return Response(rendered.data, media_type=rendered.media_type, headers=headers)
