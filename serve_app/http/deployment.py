"""The HttpApi deployment: its application, the routers it mounts, and the check of API keys.

Each router is an ``APIRouter`` in a module of its own. To add one, add it to ``KEYED_ROUTERS``, or
to ``OPEN_ROUTERS`` if its routes need no API key. A route takes what it needs of the deployment as
a parameter (see ``http.endpoint``). No pixel is touched in this process.
"""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from ray import serve

from serve_app.error_text import visible
from serve_app.errors import RateLimited, Unauthenticated
from serve_app.http.endpoint import (
    CurrentEndpoint,
    Endpoint,
    configured_cors_origins,
    configured_metrics,
)
from serve_app.http.middleware import (
    CorsMiddleware,
    DeadlineHeaderMiddleware,
    RembgCorsMiddleware,
)
from serve_app.http.openapi import DescribedApi
from serve_app.http.problems import error_responses, install_error_handlers
from serve_app.http.request_metrics import KEY_IN_SCOPE, MetricsMiddleware
from serve_app.http.routes import catalog, cutout, health, jobs, operations, pages, rembg
from serve_app.version import find_version

_logger = logging.getLogger(__name__)

KEYED_ROUTERS = (cutout.router, jobs.router, catalog.router, operations.router, rembg.router)
"""Routers whose routes need an API key if keys are configured."""

OPEN_ROUTERS = (health.router, pages.router)
"""Routers whose routes never need an API key."""


async def require_key(
    request: Request,
    endpoint: CurrentEndpoint,
    key: Annotated[
        str | None,
        Security(
            APIKeyHeader(
                name="X-API-Key",
                scheme_name="key",
                description="API key. Required if the server has keys configured.",
                auto_error=False,
            )
        ),
    ],
    bearer: Annotated[
        HTTPAuthorizationCredentials | None,
        Security(
            HTTPBearer(
                scheme_name="bearer",
                description="The same API key as a bearer token.",
                auto_error=False,
            )
        ),
    ],
) -> None:
    """Reject a request without a valid API key if keys are configured.

    Raises:
        Unauthenticated: The request has no key, or none that is valid.
        RateLimited: The key has sent more requests than it may.
    """
    if endpoint.keys is None:
        return
    presented = [value for value in (key, bearer and bearer.credentials) if value]
    if not presented:
        raise Unauthenticated(
            "This server needs an API key. Send it in the header 'X-API-Key: KEY' or "
            "'Authorization: Bearer KEY'."
        )
    accepted = await endpoint.keys.accept(presented)
    if accepted is None:
        raise Unauthenticated("The API key is not valid on this server.")
    if accepted.name is not None:
        request.scope[KEY_IN_SCOPE] = accepted.name
        name, method, path = accepted.name, request.method, visible(request.url.path)
        _logger.info("API key %s: %s %s", name, method, path, extra={"api_key": name})
    endpoint.keys.count_request(accepted)


def make_api() -> FastAPI:
    """Return the application with all routes."""
    api = DescribedApi(
        title="Foreedge",
        summary="Removes the background from images.",
        version=find_version(),
        # FastAPI's own documentation pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
    )
    install_error_handlers(api)
    # The first is the innermost, which sees what the routes leave in the scope.
    api.add_middleware(MetricsMiddleware, find_metrics=configured_metrics)
    api.add_middleware(RembgCorsMiddleware, path=rembg.REMOVE_PATH)
    api.add_middleware(
        CorsMiddleware, paths=cutout.PATHS, configured_origins=configured_cors_origins
    )
    api.add_middleware(DeadlineHeaderMiddleware)
    for router in KEYED_ROUTERS:
        api.include_router(
            router,
            dependencies=[Depends(require_key)],
            responses=error_responses(Unauthenticated, RateLimited),
        )
    for router in OPEN_ROUTERS:
        api.include_router(router)
    return api


@serve.ingress(make_api())
class HttpApi(Endpoint):
    """Limits what it accepts, and passes images to the pipeline and jobs to the queue."""
