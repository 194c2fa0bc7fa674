"""Routes for jobs: putting them on the queue, and reporting the progress of a run."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from serve_app.contracts.job import RunId
from serve_app.contracts.json_text import parse_json
from serve_app.contracts.submission import Receipt, RunCounts
from serve_app.errors import (
    BY_CODE,
    DeadlineExceeded,
    InvalidMessage,
    InvalidRecipe,
    InvalidRequest,
    Overloaded,
    QueueUnavailable,
    RequestTooLarge,
    SourceNotAllowed,
    SourceNotFound,
    StorageUnavailable,
    UnknownModel,
)
from serve_app.http.endpoint import CurrentEndpoint, RequestedTimeout
from serve_app.http.openapi_schemas import JOBS_BODY, MAX_JOBS
from serve_app.http.problems import error_responses, respond_with_problem
from serve_app.http.uploads import read_body

router = APIRouter(tags=["jobs"])

_MAX_BODY_BYTES = 4 * 1024 * 1024
_VALUES_PER_JOB = 50
"""Most values of a job on average. One with every field has 40."""


class Receipts(BaseModel):
    """Report of what happened to the jobs of a request."""

    run_id: str | None = Field(
        description="Run of the queued jobs, or null if they belong to several runs."
    )
    queued: int = Field(description="Number of jobs that were queued.")
    refused: int = Field(description="Number of jobs that were refused.")
    jobs: list[Receipt] = Field(description="Report of each job, in the order of the request.")


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=Receipts,
    openapi_extra={"requestBody": JOBS_BODY},
    response_description="At least one job was queued.",
    responses=error_responses(
        InvalidRequest,
        InvalidMessage,
        InvalidRecipe,
        UnknownModel,
        SourceNotAllowed,
        RequestTooLarge,
        QueueUnavailable,
        Overloaded,
        DeadlineExceeded,
    ),
)
async def submit_jobs(
    request: Request, endpoint: CurrentEndpoint, timeout_s: RequestedTimeout = None
) -> Any:
    """Put one job, or an array of up to 1,000 jobs, on the queue.

    The response is 202 if at least one job was queued, and reports each job separately. If none was
    queued, the response is the error of the first job, with the reports of all jobs under `jobs`.

    Submitting jobs again is safe if they have a `job_id`: a finished job is not processed twice.
    """
    async with endpoint.deadline(timeout_s):
        with endpoint.uploads.take(), endpoint.buffer.reservation() as reserve:
            too_large = RequestTooLarge(
                f"The body has more than {_MAX_BODY_BYTES:,} bytes, the limit. "
                "Send the jobs in several requests."
            )
            body = await read_body(request, _MAX_BODY_BYTES, too_large, reserve)
            receipts = await endpoint.jobs.submit(await asyncio.to_thread(_parse_jobs, body))
    counts = Counter(receipt.status for receipt in receipts)
    if not counts["queued"]:
        return _none_queued_response(receipts, request)
    run_ids = {receipt.run_id for receipt in receipts if receipt.status == "queued"}
    return Receipts(
        run_id=run_ids.pop() if len(run_ids) == 1 else None,
        queued=counts["queued"],
        refused=counts["refused"],
        jobs=receipts,
    )


@router.get(
    "/v1/jobs/{run_id}",
    response_description="The number of jobs by status.",
    responses=error_responses(
        InvalidRequest, SourceNotFound, StorageUnavailable, Overloaded, DeadlineExceeded
    ),
)
async def count_jobs_of_run(
    run_id: Annotated[RunId, Path(description="Identifier of the run.")],
    endpoint: CurrentEndpoint,
    timeout_s: RequestedTimeout = None,
) -> RunCounts:
    """Report the progress of a run."""
    async with endpoint.deadline(timeout_s):
        with endpoint.uploads.take():
            return await endpoint.jobs.counts(run_id)


def _parse_jobs(body: bytes) -> list[Any]:
    try:
        content = parse_json(body, MAX_JOBS * _VALUES_PER_JOB)
    except ValueError as error:
        raise InvalidRequest(f"The body {error}") from error
    if isinstance(content, dict):
        return [content]
    if not isinstance(content, list) or not 1 <= len(content) <= MAX_JOBS:
        raise InvalidMessage(
            f"The body is neither a job nor an array of jobs. Send an object, or an array of 1 to "
            f"{MAX_JOBS:,} objects."
        )
    return content


def _none_queued_response(receipts: list[Receipt], request: Request) -> JSONResponse:
    first = receipts[0]
    error = BY_CODE[first.code or ""](first.detail or "")
    jobs = [receipt.model_dump() for receipt in receipts]
    return respond_with_problem(error, request, **({"jobs": jobs} if len(jobs) > 1 else {}))
