"""Jobs over HTTP: what the endpoint needs to queue them, and to report what became of them."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from pydantic import Field

from serve_app.contracts.base import Contract
from serve_app.errors import Retry


class Receipt(Contract):
    """The answer to one job that a client posted."""

    job_id: str | None = None
    run_id: str | None = None
    status: Literal["queued", "refused"]
    code: str | None = None
    """Error code of a refused job."""
    detail: str | None = None
    """Reason for the refusal, for people."""
    retry: Retry | None = None


class RunCounts(Contract):
    """The progress of a run."""

    run_id: str
    jobs: int | None = Field(
        description="Number of jobs of the run listed so far; null if it is unknown."
    )
    counts: dict[str, int] = Field(description="Number of jobs by the status they ended with.")
    remaining: int | None = Field(
        description="Number of listed jobs without a result; null if `jobs` is. A failed job that "
        "was sent again counts as one without a result until it ends."
    )
    codes: dict[str, int] = Field(
        description="Number of failed jobs by error code, the most frequent first."
    )
    complete: bool = Field(
        description="Whether every job of the run is listed and every recorded result is counted. "
        "Results are counted in steps, one with each request, so repeat the request while this is "
        "false. The run has ended when it is true and `remaining` is 0."
    )


class JobQueue(Protocol):
    """The queue of jobs that clients post, and the counts of their runs."""

    async def submit(self, contents: list[Any]) -> list[Receipt]:
        """Put jobs on the queue, and return a receipt for each, in order.

        Raises:
            QueueUnavailable: No queue is configured.
        """
        ...

    async def counts(self, run_id: str) -> RunCounts:
        """Return the progress of a run.

        Raises:
            SourceNotFound: The run does not exist.
            StorageUnavailable: No ledger is configured, or it does not answer.
        """
        ...
