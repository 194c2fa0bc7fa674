"""The route that sends jobs of a collection which SQS did not take."""

from __future__ import annotations

from fastapi import APIRouter

from serve_app.contracts.retry import RetryCounts
from serve_app.errors import DatabaseUnavailable, DeadlineExceeded, InvalidRequest, Overloaded
from serve_app.http.endpoint import CurrentEndpoint, RequestedTimeout
from serve_app.http.problems import error_responses

router = APIRouter(tags=["jobs"])


@router.post(
    "/v1/catalog/retry-queue-failed",
    response_description="What became of the jobs.",
    responses=error_responses(InvalidRequest, DatabaseUnavailable, Overloaded, DeadlineExceeded),
)
async def retry_queue_failed(
    endpoint: CurrentEndpoint, timeout_s: RequestedTimeout = None
) -> RetryCounts:
    """Send the jobs of the collection that say `queue_failed`, the oldest 50.

    Consumers do the same for all of them every five minutes. Requests at the same time do no harm.
    """
    if endpoint.queue_failed is None:
        raise DatabaseUnavailable(
            "No catalog is configured (catalog.database_url or catalog.database_secret), so that "
            "there are no jobs to retry."
        )
    async with endpoint.deadline(timeout_s):
        with endpoint.uploads.take():
            return await endpoint.queue_failed.retry()
