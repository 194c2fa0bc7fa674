"""Errors as ``application/problem+json`` (RFC 9457), with the ``code`` of our tree of errors."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve_app.errors import ForeedgeError, InvalidRecipe, Overloaded

PROBLEM = "application/problem+json"


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


def handle_errors(api: FastAPI) -> None:
    """Let every error of an application be answered as a problem document."""
    api.add_exception_handler(ForeedgeError, _own_error)
    api.add_exception_handler(RequestValidationError, _invalid_request)
    api.add_exception_handler(HTTPException, _http_error)


async def _own_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ForeedgeError)
    return problem(error, request.url.path)


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    parts = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]
    return problem(InvalidRecipe("; ".join(parts)), request.url.path)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
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
