"""The interface through which the HTTP endpoint queues jobs and reports on runs."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from pydantic import Field

from serve_app.contracts.base import Contract
from serve_app.errors import Retry


class Receipt(Contract):
    """Whether one job was queued, and if not, why."""

    job_id: str | None = None
    """Identifier of the job. None if the job has none and was refused."""
    run_id: str | None = None
    """Identifier of the run that the job belongs to."""
    status: Literal["queued", "refused"]
    """Whether the job is on the queue."""
    code: str | None = None
    """Code of the error for which the job was refused (``serve_app.errors``)."""
    detail: str | None = None
    """Message of that error."""
    retry: Retry | None = None
    """Whether it can help to submit the job again."""


class RunCounts(Contract):
    """Progress of a run."""

    run_id: str
    jobs: int | None = Field(description="Jobs of the run, or null if their number is unknown.")
    counts: dict[str, int] = Field(description="Number of jobs by their status.")
    remaining: int | None = Field(description="Jobs without a result, or null if `jobs` is null.")
    codes: dict[str, int] = Field(
        description="Number of failed jobs by error code, the most frequent first."
    )
    complete: bool = Field(
        description="Whether every result recorded so far was counted. If there are very many, "
        "each request counts a further part of them."
    )


class JobQueue(Protocol):
    """The queue of submitted jobs, and the results of the runs they belong to."""

    async def submit(self, contents: list[Any]) -> list[Receipt]:
        """Put jobs on the queue and return a receipt for each, in their order.

        Raises:
            QueueUnavailable: No queue is configured.
        """
        ...

    async def counts(self, run_id: str) -> RunCounts:
        """Return the progress of a run.

        Raises:
            SourceNotFound: The run does not exist.
            StorageUnavailable: No ledger is configured, or the ledger does not answer.
        """
        ...
