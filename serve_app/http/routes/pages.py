"""Routes of the web pages: ``/`` to try an image, ``/ops`` for operators, and ``/docs``.

Everything that they load comes from this endpoint.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse

from serve_app.http.docs_page import render_docs_page

router = APIRouter(include_in_schema=False)

_MEDIA_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "ops.html": "text/html; charset=utf-8",
    "ops.css": "text/css; charset=utf-8",
    "ops.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    # The browser loads nothing from other hosts, and sends nothing to them.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # After an update, the page must not run with the previous version of its script.
    "Cache-Control": "no-cache",
}


@router.get("/")
async def show_page() -> Response:
    """Return the page on which an image can be tried."""
    return _static_response("index.html")


@router.get("/ops")
async def show_operations() -> Response:
    """Return the page that shows how the application does. It asks ``/v1/ops``."""
    return _static_response("ops.html")


@router.get("/page/{name}")
async def load_page_file(name: str) -> Response:
    """Return a file that the page loads."""
    if name not in _MEDIA_TYPES:
        raise HTTPException(404)
    return _static_response(name)


@router.get("/docs")
async def show_docs(request: Request) -> HTMLResponse:
    """Return the documentation of the API."""
    assert isinstance(request.app, FastAPI)
    return HTMLResponse(render_docs_page(request.app.openapi()))


def _static_response(name: str) -> Response:
    return Response(_read_static(name), media_type=_MEDIA_TYPES[name], headers=_HEADERS)


@cache
def _read_static(name: str) -> bytes:
    return (files("serve_app.http") / "static" / name).read_bytes()
