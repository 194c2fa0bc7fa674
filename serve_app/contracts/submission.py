"""What the endpoint needs of a queue: to put jobs on it, and to tell what became of them."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from pydantic import Field

from serve_app.contracts.base import Contract
from serve_app.errors import Retry


class Receipt(Contract):
    """What became of one job that was to be queued."""

    job_id: str | None = None
    run_id: str | None = None
    status: Literal["queued", "refused"]
    code: str | None = None
    """Why it was refused."""
    detail: str | None = None
    retry: Retry | None = None


class RunCounts(Contract):
    """How far a run is."""

    run_id: str
    jobs: int | None = Field(description="That belong to the run; null where nobody knows.")
    counts: dict[str, int] = Field(description="Jobs by how they ended.")
    remaining: int | None = Field(description="Jobs without a result; null where `jobs` is.")
    codes: dict[str, int] = Field(description="Failed jobs by code, the most frequent first.")
    complete: bool = Field(
        description="Whether every result that is recorded so far was counted. Where there are "
        "very many they are counted in steps, one with each request."
    )


class JobQueue(Protocol):
    """Where jobs go that a client posts, and where is read what became of them."""

    async def submit(self, contents: list[Any]) -> list[Receipt]:
        """Put jobs on the queue; return what became of each, in their order.

        Raises:
            QueueUnavailable: No queue is configured.
        """
        ...

    async def counts(self, run_id: str) -> RunCounts:
        """Return how far a run is.

        Raises:
            SourceNotFound: There is no such run.
            StorageUnavailable: No ledger is configured, or it does not answer.
        """
        ...
