"""HttpApi: the HTTP endpoint. No pixel is touched here.

The routes are in modules of their own, each with an ``APIRouter``; a further one is mounted by
adding its router to ``ROUTERS``. What a route needs of the deployment it takes as a parameter,
see ``http_endpoint``.
"""

from __future__ import annotations

from fastapi import FastAPI
from ray import serve

from serve_app import http_cutout, http_status
from serve_app.http_endpoint import Endpoint
from serve_app.http_problems import handle_errors

ROUTERS = (http_cutout.router, http_status.router)


def make_api() -> FastAPI:
    """Return the application of all routes."""
    api = FastAPI(
        title="Foreedge",
        summary="Removes the background from photographs.",
        docs_url="/docs",
        redoc_url=None,
    )
    handle_errors(api)
    for router in ROUTERS:
        api.include_router(router)
    return api


@serve.ingress(make_api())
class HttpApi(Endpoint):
    """The ingress: bounds what it accepts, and hands images to the pipeline."""
