"""HttpApi: the HTTP endpoint. No pixel is touched here.

The routes are in modules of their own, each with an ``APIRouter``; a further one is mounted by
adding its router to ``GUARDED``, or to ``OPEN`` where it needs no API key. What a route needs of
the deployment it takes as a parameter, see ``http_endpoint``.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

from fastapi import Depends, FastAPI, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from ray import serve

from serve_app.errors import Unauthenticated
from serve_app.http import openapi as http_docs
from serve_app.http.endpoint import CurrentEndpoint, Endpoint
from serve_app.http.middleware import DeadlineHeaderMiddleware, RembgCorsMiddleware
from serve_app.http.problems import handle_errors, responses
from serve_app.http.routes import cutout as http_cutout
from serve_app.http.routes import health as http_status
from serve_app.http.routes import jobs as http_jobs
from serve_app.http.routes import pages as http_page
from serve_app.http.routes import rembg as http_rembg

GUARDED = (http_cutout.router, http_jobs.router, http_rembg.router)
"""Routers whose routes need an API key, where there are some."""

OPEN = (http_status.router, http_docs.router, http_page.router)
"""Routers whose routes never need one."""


async def require_key(
    endpoint: CurrentEndpoint,
    key: Annotated[
        str | None,
        Security(
            APIKeyHeader(
                name="X-API-Key",
                scheme_name="key",
                description="One of the API keys, where the endpoint has some.",
                auto_error=False,
            )
        ),
    ],
    bearer: Annotated[
        HTTPAuthorizationCredentials | None,
        Security(
            HTTPBearer(scheme_name="bearer", description="The same as a token.", auto_error=False)
        ),
    ],
) -> None:
    """Let a request pass that has a key, where keys are configured.

    Raises:
        Unauthenticated: It has none, or a wrong one.
    """
    if endpoint.keys is None:
        return
    presented = [value for value in (key, bearer and bearer.credentials) if value]
    if not presented:
        raise Unauthenticated(
            "this endpoint needs an API key: send it as 'X-API-Key: KEY' or "
            "'Authorization: Bearer KEY'"
        )
    if not await endpoint.keys.accept(presented):
        raise Unauthenticated("the API key is not one of this endpoint's")


def make_api() -> FastAPI:
    """Return the application of all routes."""
    api = http_docs.Api(
        title="Foreedge",
        summary="Removes the background from photographs.",
        version=version("foreedge"),
        # Those of FastAPI load their scripts from another host.
        docs_url=None,
        redoc_url=None,
    )
    handle_errors(api)
    api.add_middleware(RembgCorsMiddleware, path=http_rembg.PATH)
    api.add_middleware(DeadlineHeaderMiddleware)
    for router in GUARDED:
        api.include_router(
            router, dependencies=[Depends(require_key)], responses=responses(Unauthenticated)
        )
    for router in OPEN:
        api.include_router(router)
    return api


@serve.ingress(make_api())
class HttpApi(Endpoint):
    """The ingress: bounds what it accepts, and hands images to the pipeline."""
