"""Routes that report the state of the application, for load balancers. They need no API key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from serve_app.errors import DeadlineExceeded, ModelUnavailable, Overloaded, ReplicaLost
from serve_app.http.endpoint import CurrentEndpoint
from serve_app.http.problems import error_responses

router = APIRouter(tags=["status"])


@router.get("/healthz", response_description="The replica is alive.")
async def check_liveness() -> dict[str, str]:
    """Report that this replica is alive."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    response_description="The application can process images.",
    responses=error_responses(ModelUnavailable, ReplicaLost, Overloaded, DeadlineExceeded),
)
async def check_readiness(endpoint: CurrentEndpoint) -> dict[str, Any]:
    """Report whether the application can process images.

    The status is 200 if the pipeline and every model are ready. The state of the ingest is included
    but does not affect the status: taking the endpoint out of service because a queue is
    unavailable would turn one failure into two.
    """
    models = await endpoint.models()
    ready: dict[str, Any] = {"status": "ready", "models": [model.name for model in models]}
    if (ingest := await endpoint.ingest_status()) is not None:
        ready["ingest"] = ingest
    return ready
