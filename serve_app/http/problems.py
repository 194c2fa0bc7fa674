"""Problem documents: every error of the endpoint as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from serve_app.errors import (
    ForeedgeError,
    InternalError,
    InvalidRecipe,
    InvalidRequest,
    LimitReached,
    NotAcceptable,
    Retry,
    Unauthenticated,
)

PROBLEM_MEDIA_TYPE = "application/problem+json"

_RETRY_AFTER_S = 5
_LATER = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
"""Statuses that say when to try again."""
_RFC_9110_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""Reason phrases for which Python before 3.13 has older ones."""


class Problem(BaseModel):
    """Description of why a request failed (RFC 9457)."""

    type: str = Field(description="URN of the error: `urn:foreedge:error:` followed by the code.")
    title: str = Field(description="Reason phrase of the HTTP status.")
    status: int = Field(description="HTTP status code.")
    detail: str = Field(description="What failed, on which object, and what to do about it.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable identifier of the error, for programs to act on.")
    retry: Retry | None = Field(
        None,
        description="Whether trying again can help. `permanent`: the same request fails again. "
        "`transient`: it may succeed later. `fatal`: the server is misconfigured.",
    )


def reason_phrase(status: int) -> str:
    """Return the reason phrase of a status (RFC 9110), which is the same on every Python."""
    return _RFC_9110_PHRASES.get(status) or HTTPStatus(status).phrase


ERROR_IN_SCOPE = "foreedge.error"
"""Key of an ASGI scope under which the error of a request is left for the metrics."""


def problem_response(error: ForeedgeError, instance: str, **members: Any) -> JSONResponse:
    """Return an error as a problem document.

    Args:
        error: Error to report.
        instance: Path of the request.
        **members: Additional members of the document.
    """
    content = {**_problem_document(error, instance), **members}
    return JSONResponse(
        content, error.http_status, _error_headers(error), media_type=PROBLEM_MEDIA_TYPE
    )


def respond_with_problem(error: ForeedgeError, request: Request, **members: Any) -> JSONResponse:
    """Return the error of a request as a problem document, and leave it for the metrics.

    Args:
        error: Error to report.
        request: The request.
        **members: Additional members of the document.
    """
    request.scope[ERROR_IN_SCOPE] = error
    return problem_response(error, request.url.path, **members)


def not_found_response(path: str) -> JSONResponse:
    """Return the response for a path without a route."""
    detail = f"There is nothing at {path}. The page /docs lists all routes."
    return _status_response(HTTPStatus.NOT_FOUND, detail, path)


def error_responses(*errors: type[ForeedgeError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of a route's errors, by status, with an example of each."""
    by_status: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for kind in errors:
        summary = (kind.__doc__ or "").strip().splitlines()[0]
        example = _problem_document(kind(summary), "/v1/cutout")
        by_status[kind.http_status][kind.code] = {"summary": summary, "value": example}
    found: dict[int | str, dict[str, Any]] = {}
    for status, examples in sorted(by_status.items()):
        content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
        *others, last = (f"`{code}`" for code in examples)
        codes = f"{', '.join(others)} or {last}" if others else last
        found[status] = {
            "description": f"The request failed with the code {codes}.",
            "content": {PROBLEM_MEDIA_TYPE: content},
        }
        if status in _LATER:
            found[status]["headers"] = {
                "Retry-After": {
                    "description": "Seconds to wait before trying again.",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
    return found


def install_error_handlers(api: FastAPI) -> None:
    """Make an application report every error as a problem document."""
    api.add_exception_handler(ForeedgeError, _handle_foreedge_error)
    api.add_exception_handler(RequestValidationError, _handle_validation_error)
    api.add_exception_handler(HTTPException, _handle_http_exception)
    # Starlette raises the exception again after the answer, so that it is logged.
    api.add_exception_handler(Exception, _handle_unexpected_error)


def _problem_document(error: ForeedgeError, instance: str) -> dict[str, Any]:
    return {
        "type": f"urn:foreedge:error:{error.code}",
        "title": reason_phrase(error.http_status),
        "status": error.http_status,
        "detail": error.message,
        "instance": instance,
        "code": error.code,
        "retry": error.retry,
    }


def _error_headers(error: ForeedgeError) -> dict[str, str]:
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": 'Bearer realm="foreedge"'}
    if isinstance(error, NotAcceptable):
        return {"Vary": "Accept"}
    if error.http_status in _LATER:
        if isinstance(error, LimitReached):
            return {"Retry-After": str(error.retry_after_s)}
        return {"Retry-After": str(_RETRY_AFTER_S)}
    return {}


async def _handle_foreedge_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ForeedgeError)
    return respond_with_problem(error, request)


async def _handle_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    message = f"The server failed unexpectedly ({type(error).__name__}). Its log says why."
    return respond_with_problem(InternalError(message), request)


async def _handle_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    items = error.errors()
    message = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in items)
    # On every route with query parameters, these are the options of a recipe.
    in_recipe = all(item["loc"][0] == "query" for item in items)
    reported = InvalidRecipe(message) if in_recipe else InvalidRequest(message)
    return respond_with_problem(reported, request)


async def _handle_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    path = request.url.path
    if status == HTTPStatus.NOT_FOUND:
        return not_found_response(path)
    if status == HTTPStatus.BAD_REQUEST:
        return respond_with_problem(InvalidRequest(error.detail), request)
    return _status_response(status, error.detail, path, error.headers)


def _status_response(
    status: HTTPStatus, detail: str, instance: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return a problem document for a status that has no error class."""
    title = reason_phrase(status)
    content = {
        "type": "about:blank",
        "title": title,
        "status": status.value,
        "detail": detail,
        "instance": instance,
        "code": title.lower().replace(" ", "_"),
    }
    return JSONResponse(content, status, headers, media_type=PROBLEM_MEDIA_TYPE)
