"""Routes for jobs that go through the queue."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from serve_app.contracts.job import RUN_ID_PATTERN
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
from serve_app.http.endpoint import AskedTimeout, CurrentEndpoint
from serve_app.http.problems import problem, responses
from serve_app.http.uploads import read_body

router = APIRouter(tags=["jobs"])

MAX_JOBS = 1_000
"""Of one request."""

_MAX_BODY_BYTES = 4 * 1024 * 1024
_JOB_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["source"],
    "properties": {
        "job_id": {"type": "string", "maxLength": 200, "description": "Made where it is missing."},
        "run_id": {
            "type": "string",
            "pattern": RUN_ID_PATTERN,
            "description": "Made where it is missing, one for the whole request.",
        },
        "source": {
            "type": "object",
            "required": ["bucket", "key"],
            "properties": {
                "bucket": {"type": "string"},
                "key": {"type": "string"},
                "version_id": {"type": ["string", "null"]},
                "etag": {"type": ["string", "null"]},
            },
        },
        "output": {
            "type": "object",
            "required": ["bucket"],
            "properties": {"bucket": {"type": "string"}, "prefix": {"type": "string"}},
        },
        "recipe": {
            "description": "A preset's name, or a recipe as an object.",
            "oneOf": [{"type": "string"}, {"type": "object"}],
        },
    },
    "example": {
        "source": {"bucket": "photographs", "key": "in/1.jpg"},
        "output": {"bucket": "photographs", "prefix": "cutouts/"},
        "recipe": "catalog",
    },
}
_JOBS_SCHEMA = {
    "oneOf": [_JOB_SCHEMA, {"type": "array", "items": _JOB_SCHEMA, "maxItems": MAX_JOBS}]
}


class Receipts(BaseModel):
    """What became of the jobs of a request."""

    run_id: str | None = Field(
        description="The run of all jobs that were queued; null where they are of several."
    )
    queued: int
    refused: int
    jobs: list[Receipt] = Field(description="In the order of the request.")


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=Receipts,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": _JOBS_SCHEMA}}}
    },
    response_description="At least one job was queued.",
    responses=responses(
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
async def submit(
    request: Request, endpoint: CurrentEndpoint, timeout_s: AskedTimeout = None
) -> Any:
    """Put one job, or a list of up to 1,000, on the queue.

    The answer is 202 where at least one was queued, and tells of each; where none was it is the
    first one's error, with the others under ``jobs``. Sending jobs again is safe where they have a
    ``job_id``: a job that is done makes nothing anew.
    """
    async with endpoint.deadline(timeout_s):
        with endpoint.uploads.take(), endpoint.buffer.open() as hold:
            too_large = RequestTooLarge(f"the jobs have more than {_MAX_BODY_BYTES:,} bytes")
            body = await read_body(request, _MAX_BODY_BYTES, too_large, hold)
            receipts = await endpoint.jobs.submit(_jobs_of(body))
    counts = Counter(receipt.status for receipt in receipts)
    runs = {receipt.run_id for receipt in receipts if receipt.status == "queued"}
    answer = Receipts(
        run_id=runs.pop() if len(runs) == 1 else None,
        queued=counts["queued"],
        refused=counts["refused"],
        jobs=receipts,
    )
    if answer.queued:
        return answer
    return _none_queued(receipts, request.url.path)


@router.get(
    "/v1/jobs/{run_id}",
    response_description="The counts, as far as the ledger has been read.",
    responses=responses(
        InvalidRequest, SourceNotFound, StorageUnavailable, Overloaded, DeadlineExceeded
    ),
)
async def counts(
    run_id: Annotated[str, Path(pattern=RUN_ID_PATTERN, description="Of a run.")],
    endpoint: CurrentEndpoint,
    timeout_s: AskedTimeout = None,
) -> RunCounts:
    """Tell how far a run is."""
    async with endpoint.deadline(timeout_s):
        with endpoint.uploads.take():
            return await endpoint.jobs.counts(run_id)


def _jobs_of(body: bytes) -> list[Any]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if isinstance(content, dict):
        return [content]
    if not isinstance(content, list) or not 1 <= len(content) <= MAX_JOBS:
        raise InvalidMessage(f"the body must be a job, or a list of 1 to {MAX_JOBS:,} jobs")
    return content


def _none_queued(receipts: list[Receipt], path: str) -> JSONResponse:
    first = receipts[0]
    error = BY_CODE[first.code or ""](first.detail or "")
    jobs = [receipt.model_dump() for receipt in receipts]
    return problem(error, path, **({"jobs": jobs} if len(jobs) > 1 else {}))
