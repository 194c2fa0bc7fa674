"""HttpApi: the HTTP endpoint. No pixel is touched here.

Every error is ``application/problem+json`` (RFC 9457) with the ``code`` of our tree of errors.
"""

# Annotations are not postponed here: serve.ingress rewrites the signatures of a class's routes, and
# FastAPI then no longer finds what their names stand for.

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message

from serve_app.config import AppConfig
from serve_app.contracts import MEDIA_TYPES, Recipe, describe, parse_recipe
from serve_app.cutout import ModelInfo, Rendered
from serve_app.errors import (
    EmptyImage,
    ForeedgeError,
    ImageTooLarge,
    InvalidRecipe,
    Overloaded,
    UnsupportedFormat,
)
from serve_app.replicas import call

PROBLEM = "application/problem+json"

_FORM_OVERHEAD_BYTES = 64 * 1024
_READY_TIMEOUT_S = 5.0

api = FastAPI(
    title="Foreedge",
    summary="Removes the background from photographs.",
    docs_url="/docs",
    redoc_url=None,
)


class Options(BaseModel):
    """Query parameters, or fields of a form, that make a recipe."""

    model_config = ConfigDict(extra="forbid")

    recipe: str = "cutout"
    """A preset's name; the other options win over its fields."""
    models: str | None = None
    """Names with commas between."""
    background: str | None = None
    format: str | None = None
    quality: str | None = None
    png_compression: str | None = None
    matting: str | None = None
    mask_only: str | None = None
    crop_to_subject: str | None = None
    min_subject_px: str | None = None
    min_subject_area: str | None = None
    max_aspect_change: str | None = None


def make_recipe(options: Options, accept: str | None) -> Recipe:
    """Return the recipe that a request asks for.

    Args:
        options: Of the query or the form; their text is converted by the recipe's own types.
        accept: The ``Accept`` header; it chooses the format where the options do not.

    Raises:
        InvalidRecipe: An option's value is invalid.
    """
    fields = options.model_dump(exclude_none=True)
    preset = fields.pop("recipe")
    if "models" in fields:
        fields["models"] = [name.strip() for name in fields["models"].split(",")]
    checks = {name: fields.pop(name) for name in list(fields) if name.startswith(("min_", "max_"))}
    if checks:
        fields["checks"] = checks
    if "format" not in fields and (preferred := preferred_format(accept)):
        fields["format"] = preferred
        if preferred == "jpeg" and "background" not in fields:
            # A client that reads nothing but JPEG can have no transparency.
            fields["background"] = "white"
    return parse_recipe(preset, **fields)


def _options(fields: dict[str, str]) -> Options:
    try:
        return Options(**fields)
    except ValidationError as error:
        raise InvalidRecipe(describe(error)) from error


def preferred_format(accept: str | None) -> str | None:
    """Return the output format that an ``Accept`` header names first; None if it names none."""
    by_type = {media_type: name for name, media_type in MEDIA_TYPES.items()}
    for item in (accept or "").split(","):
        media_type = item.split(";")[0].strip().lower()
        if media_type in by_type:
            return by_type[media_type]
    return None


def problem(error: ForeedgeError, instance: str) -> JSONResponse:
    """Return an error as a problem document.

    Args:
        error: Of our tree.
        instance: Path of the request.
    """
    status = HTTPStatus(error.http_status)
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Overloaded) else None
    content = {
        "type": f"urn:foreedge:error:{error.code}",
        "title": status.phrase,
        "status": status.value,
        "detail": error.message,
        "instance": instance,
        "code": error.code,
        "retry": error.retry,
    }
    return JSONResponse(content, status, headers, media_type=PROBLEM)


@api.exception_handler(ForeedgeError)
async def _own_error(request: Request, error: ForeedgeError) -> JSONResponse:
    return problem(error, request.url.path)


@api.exception_handler(RequestValidationError)
async def _invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
    parts = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]
    return problem(InvalidRecipe("; ".join(parts)), request.url.path)


@api.exception_handler(HTTPException)
async def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    phrase = HTTPStatus(error.status_code).phrase
    content = {
        "type": "about:blank",
        "title": phrase,
        "status": error.status_code,
        "detail": error.detail,
        "instance": request.url.path,
        "code": phrase.lower().replace(" ", "_"),
    }
    return JSONResponse(content, error.status_code, error.headers, media_type=PROBLEM)


async def read_upload(request: Request, max_bytes: int) -> tuple[bytes, dict[str, str]]:
    """Return the image of a request, and the fields beside it in its form.

    Args:
        request: The image is the raw body, or the file in a multipart form.
        max_bytes: Of the image; what is longer is not read to its end.

    Raises:
        ImageTooLarge: The image has more bytes.
        EmptyImage: There is none.
        UnsupportedFormat: A form without exactly one file.
    """
    form = request.headers.get("content-type", "").startswith("multipart/form-data")
    limit = max_bytes + (_FORM_OVERHEAD_BYTES if form else 0)
    _bound(request, limit, max_bytes)
    fields: dict[str, str] = {}
    if form:
        async with request.form(max_files=1, max_fields=20) as content:
            data = await _file_of(content)
            fields = {name: value for name, value in content.items() if isinstance(value, str)}
    else:
        data = await request.body()
    if not data:
        raise EmptyImage(
            "the request has no image: send its bytes as the body, or as the file of a form"
        )
    return data, fields


def _bound(request: Request, limit: int, max_bytes: int) -> None:
    """Let a request's body end with an error once it is too long."""
    too_large = ImageTooLarge(
        f"the image has more than {max_bytes:,} bytes, the limit (limits.max_bytes)"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    receive, received = request.receive, 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large
        return message

    # Starlette offers no other place for a limit that also holds for its form parser.
    request._receive = bounded


async def _file_of(form: FormData) -> bytes:
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    if len(files) != 1:
        raise UnsupportedFormat("the form must have exactly one file, the image")
    return await files[0].read()


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


@serve.ingress(api)
class HttpApi:
    """The ingress: bounds what it accepts, and hands images to the pipeline."""

    def __init__(
        self, config: AppConfig, pipeline: DeploymentHandle, ingest: DeploymentHandle | None
    ) -> None:
        """Make the endpoint.

        Args:
            config: Its ``http`` and ``limits`` count.
            pipeline: The CutoutPipeline.
            ingest: The SqsIngest, where a queue is served too.
        """
        self._config = config
        self._pipeline = pipeline
        self._ingest = ingest
        self._accepted = 0

    @api.post("/v1/cutout", response_class=Response, responses={200: {"content": {"image/*": {}}}})
    async def cutout(self, request: Request, options: Annotated[Options, Query()]) -> Response:
        """Remove the background of one image: raw body, or a multipart form with one file."""
        async with self._place():
            recipe = make_recipe(options, request.headers.get("accept"))
            data, fields = await read_upload(request, self._config.limits.max_bytes)
            if fields:
                merged = {**options.model_dump(exclude_unset=True), **fields}
                recipe = make_recipe(_options(merged), request.headers.get("accept"))
            response = self._pipeline.cut_out.remote(data, recipe)
            rendered: Rendered | ForeedgeError = await call(
                response, self._config.http.request_timeout_s
            )
            if isinstance(rendered, ForeedgeError):
                raise rendered
            return answer(rendered)

    @api.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Answer as long as this replica lives."""
        return {"status": "ok"}

    @api.get("/readyz")
    async def readyz(self) -> dict[str, Any]:
        """Answer 200 once the pipeline and every model can take an image.

        The ingest's state is told and does not decide: an endpoint that is taken out of service
        because a queue is away would be two failures instead of one.
        """
        models = await self._models()
        ready: dict[str, Any] = {"status": "ready", "models": [model.name for model in models]}
        if self._ingest is not None:
            ready["ingest"] = await call(self._ingest.status.remote(), _READY_TIMEOUT_S)
        return ready

    @api.get("/v1/models")
    async def models(self) -> dict[str, list[ModelInfo]]:
        """Return the models that are served, in the order of preference."""
        return {"models": await self._models()}

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Take one of the places for images, or refuse at once."""
        limit = self._config.http.max_concurrent
        if self._accepted >= limit:
            raise Overloaded(f"{limit} images are being worked on (http.max_concurrent)")
        self._accepted += 1
        try:
            yield
        finally:
            self._accepted -= 1

    async def _models(self) -> list[ModelInfo]:
        models: list[ModelInfo] = await call(self._pipeline.models.remote(), _READY_TIMEOUT_S)
        return models
