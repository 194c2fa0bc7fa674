"""The route that reports how the application does."""

from __future__ import annotations

from fastapi import APIRouter

from serve_app.http.endpoint import CurrentEndpoint
from serve_app.http.operations_answer import Operations

router = APIRouter(tags=["status"])


@router.get(
    "/v1/ops",
    response_description="The last half hour, and the present state.",
)
async def report_operations(endpoint: CurrentEndpoint) -> Operations:
    """Report what all replicas did during the last half hour, and how they are now.

    The page `/ops` shows it. Replicas that have ended count as well, but for what they did in their
    last seconds. Prometheus keeps everything, and for longer.
    """
    return await endpoint.operations()
