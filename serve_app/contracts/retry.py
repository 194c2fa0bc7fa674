"""The retry of jobs that SQS did not take, as the HTTP endpoint sees it."""

from __future__ import annotations

from typing import Protocol

from pydantic import Field

from serve_app.contracts.base import Contract


class RetryCounts(Contract):
    """What became of the jobs of a collection that were sent again."""

    retried: int = Field(description="Number of jobs that were tried, the sum of the others.")
    succeeded: int = Field(
        description="Number of jobs that wait for a worker now, or whose image another job has."
    )
    still_failing: int = Field(description="Number of jobs that SQS did not take.")
    permanently_failed: int = Field(
        description="Number of jobs that no message can carry. An outage of SQS never leads to it."
    )


class QueueFailedJobs(Protocol):
    """The jobs of a collection that say ``queue_failed``."""

    async def retry(self) -> RetryCounts:
        """Send the oldest of them, and return what became of them.

        Raises:
            DatabaseUnavailable: The database of the collection does not answer.
        """
        ...
