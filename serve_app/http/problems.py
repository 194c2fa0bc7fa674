"""Errors as ``application/problem+json`` (RFC 9457), with the ``code`` of our tree of errors."""

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
    InvalidRecipe,
    InvalidRequest,
    Overloaded,
    Retry,
    Unauthenticated,
)

PROBLEM = "application/problem+json"

_RETRY_AFTER_S = 5


class Problem(BaseModel):
    """Why a request failed (RFC 9457)."""

    type: str = Field(description="``urn:foreedge:error:`` and the code.")
    title: str = Field(description="The phrase of the status.")
    status: int
    detail: str = Field(description="What was wrong, with what, and what to do.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable name of the error; what a program looks at.")
    retry: Retry | None = Field(
        None, description="``permanent``: the same request fails again. ``transient``: try again."
    )


def problem(error: ForeedgeError, instance: str, **members: Any) -> JSONResponse:
    """Return an error as a problem document.

    Args:
        error: Of our tree.
        instance: Path of the request.
        **members: Further members of the document.
    """
    content = {**_document(error, instance), **members}
    return JSONResponse(content, error.http_status, _headers(error), media_type=PROBLEM)


def unknown_path(path: str) -> JSONResponse:
    """Return the answer for a path that there is not."""
    return _of_status(HTTPStatus.NOT_FOUND, f"there is no {path} here; see /docs", path)


def responses(*errors: type[ForeedgeError]) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of errors that a route can answer with, with an example each."""
    by_status: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for kind in errors:
        meaning = (kind.__doc__ or "").strip().splitlines()[0]
        example = _document(kind(meaning), "/v1/cutout")
        by_status[kind.http_status][kind.code] = {"summary": meaning, "value": example}
    found: dict[int | str, dict[str, Any]] = {}
    for status, examples in sorted(by_status.items()):
        content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
        found[status] = {
            "description": ", ".join(f"`{code}`" for code in examples),
            "content": {PROBLEM: content},
        }
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            seconds = {"schema": {"type": "integer", "minimum": 1}}
            found[status]["headers"] = {"Retry-After": {"description": "In seconds.", **seconds}}
    return found


def handle_errors(api: FastAPI) -> None:
    """Let every error of an application be answered as a problem document."""
    api.add_exception_handler(ForeedgeError, _own_error)
    api.add_exception_handler(RequestValidationError, _invalid_request)
    api.add_exception_handler(HTTPException, _http_error)


def _document(error: ForeedgeError, instance: str) -> dict[str, Any]:
    return {
        "type": f"urn:foreedge:error:{error.code}",
        "title": HTTPStatus(error.http_status).phrase,
        "status": error.http_status,
        "detail": error.message,
        "instance": instance,
        "code": error.code,
        "retry": error.retry,
    }


def _headers(error: ForeedgeError) -> dict[str, str]:
    if isinstance(error, Unauthenticated):
        return {"WWW-Authenticate": 'Bearer realm="foreedge"'}
    if error.http_status == HTTPStatus.SERVICE_UNAVAILABLE:
        after_s = error.retry_after_s if isinstance(error, Overloaded) else _RETRY_AFTER_S
        return {"Retry-After": str(after_s)}
    return {}


async def _own_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ForeedgeError)
    return problem(error, request.url.path)


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    items = error.errors()
    message = "; ".join(f"{item['loc'][-1]}: {item['msg']}" for item in items)
    # What is in the query are options of a recipe, on every route that has any.
    of_recipe = all(item["loc"][0] == "query" for item in items)
    own = InvalidRecipe(message) if of_recipe else InvalidRequest(message)
    return problem(own, request.url.path)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    path = request.url.path
    if status == HTTPStatus.NOT_FOUND:
        return unknown_path(path)
    if status == HTTPStatus.BAD_REQUEST:
        return problem(InvalidRequest(error.detail), path)
    return _of_status(status, error.detail, path, error.headers)


def _of_status(
    status: HTTPStatus, detail: str, instance: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    content = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "instance": instance,
        "code": status.phrase.lower().replace(" ", "_"),
    }
    return JSONResponse(content, status, headers, media_type=PROBLEM)
