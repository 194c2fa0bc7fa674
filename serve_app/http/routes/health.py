"""Routes that report the state of the application, for load balancers. They need no API key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from serve_app.errors import DeadlineExceeded, ModelUnavailable, Overloaded, ReplicaLost
from serve_app.http.endpoint import CurrentEndpoint
from serve_app.http.problems import error_responses
from serve_app.version import find_revision, find_version

router = APIRouter(tags=["status"])


@router.get("/healthz", response_description="The replica is alive.")
async def check_liveness() -> dict[str, str]:
    """Report that this replica is alive, and which program it runs.

    `version` is the release, and `revision` the commit that the container image was built from
    (`unknown` outside of an image).
    """
    return {"status": "ok", "version": find_version(), "revision": find_revision()}


@router.get(
    "/readyz",
    response_description="The application can process images.",
    responses=error_responses(ModelUnavailable, ReplicaLost, Overloaded, DeadlineExceeded),
)
async def check_readiness(request: Request, endpoint: CurrentEndpoint) -> dict[str, Any]:
    """Report whether the application can process images.

    The status is 200 if the pipeline and every model are ready. The state of the ingest is included
    but does not affect the status: taking the endpoint out of service because a queue is
    unavailable would turn one failure into two. `refused` says why a model does not run with the
    engine or precision that is configured, or which derived file `auto` does not count. If API keys
    are configured, both are given to callers with a key only.
    """
    models = await endpoint.models()
    ready: dict[str, Any] = {"status": "ready", "models": [model.name for model in models]}
    if await _may_see_details(request, endpoint):
        refused = {model.name: model.refused for model in models if model.refused}
        if refused:
            ready["refused"] = refused
        ingest = await endpoint.ingest_status()
        if ingest is not None:
            ready["ingest"] = ingest
    return ready


async def _may_see_details(request: Request, endpoint: CurrentEndpoint) -> bool:
    """Return whether the caller has an API key, or none is needed."""
    if endpoint.keys is None:
        return True
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    presented = [request.headers.get("x-api-key", ""), bearer * (scheme.lower() == "bearer")]
    presented = [key for key in presented if key]
    return bool(presented) and await endpoint.keys.accept(presented) is not None
