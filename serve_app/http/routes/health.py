"""Routes that tell how the application is; load balancers ask them, and they need no key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from serve_app.errors import DeadlineExceeded, ModelUnavailable, Overloaded, ReplicaLost
from serve_app.http.endpoint import CurrentEndpoint
from serve_app.http.problems import responses

router = APIRouter(tags=["status"])


@router.get("/healthz", response_description="It lives.")
async def healthz() -> dict[str, str]:
    """Answer as long as this replica lives."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    response_description="Ready.",
    responses=responses(ModelUnavailable, ReplicaLost, Overloaded, DeadlineExceeded),
)
async def readyz(endpoint: CurrentEndpoint) -> dict[str, Any]:
    """Answer 200 once the pipeline and every model can take an image.

    The ingest's state is told and does not decide: an endpoint that is taken out of service
    because a queue is away would be two failures instead of one.
    """
    models = await endpoint.models()
    ready: dict[str, Any] = {"status": "ready", "models": [model.name for model in models]}
    if (ingest := await endpoint.ingest_status()) is not None:
        ready["ingest"] = ingest
    return ready
