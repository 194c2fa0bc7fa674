"""The answer of ``/v1/ops``, which the page at ``/ops`` shows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class QueueState(BaseModel):
    """The messages of the queue."""

    waiting: int = Field(description="Messages that wait, as SQS counts them.")
    in_flight: int = Field(description="Messages that consumers hold, as SQS counts them.")
    oldest_s: float = Field(
        description="Age, in seconds, of the oldest message of the last receives."
    )
    drained_in_s: float | None = Field(
        description="Seconds until the backlog is empty at the rate of the last minute. Null if "
        "nothing was processed."
    )
    policy_drained_in_s: float | None = Field(
        description="Seconds in which the replicas that run or start drain the backlog, as the "
        "autoscaling policy computes it for the slowest deployment. Null without autoscaling."
    )


class Boundary(BaseModel):
    """Something that the consumers depend on."""

    name: str = Field(
        description="queue, source, model, pipeline, output, ledger, database, autoscaling, or "
        "settings."
    )
    reason: str | None = Field(description="Why it is not well. Null if it is.")
    consumers: int = Field(description="Number of consumers for which it is not well.")


class Stage(BaseModel):
    """The time of one stage of the pipeline during the last five minutes."""

    name: str
    images: int = Field(description="Number of images that went through it.")
    median_s: float = Field(description="Median, in seconds, estimated from a histogram.")
    p95_s: float = Field(description="95th percentile, in seconds, estimated from a histogram.")


class Replicas(BaseModel):
    """The replicas of one deployment."""

    deployment: str
    wanted: int = Field(description="Number of replicas that Serve keeps or starts.")
    running: int = Field(description="Number of replicas that have started.")
    states: dict[str, int] = Field(description="Number of replicas in each state of Serve.")
    status: str = Field(default="HEALTHY", description="Status of the deployment in Serve.")
    message: str = Field(default="", description="What Serve says about it, or empty.")


class Failure(BaseModel):
    """An image that failed, or a request that was answered with an error."""

    at: datetime
    way_in: str = Field(description="queue or http.")
    code: str
    message: str
    subject: str = Field(description="Source of the job, or method and path of the request.")
    job_id: str
    run_id: str


class Moment(BaseModel):
    """Ten seconds of the last half hour."""

    at: datetime = Field(description="Their beginning.")
    done: float = Field(description="Images per second with a result.")
    failed: float = Field(description="Images per second without one.")
    waiting: int | None = Field(description="Messages that wait. Null if nobody read it.")
    in_flight: int | None = Field(description="Jobs that run. Null if no consumer recorded it.")


class Operations(BaseModel):
    """What the application did during the last half hour, and how it is now."""

    at: datetime
    attention: list[str] = Field(description="What somebody should look at. Empty if all is well.")
    notes: list[str] = Field(description="What changes by itself, such as replicas that start.")
    images_per_s: float = Field(description="Images per second during the last minute.")
    outcomes: dict[str, int] = Field(description="Images of the last half hour, by outcome.")
    failures_by_code: dict[str, int] = Field(description="Failed images, by error code.")
    retries_by_code: dict[str, int] = Field(
        description="Messages given back during the last half hour because of a transient error, "
        "by its code. They come again."
    )
    refusals_by_code: dict[str, int] = Field(
        description="HTTP requests refused during the last half hour because of a limit or a "
        "missing key, by error code."
    )
    dead_letters: int = Field(description="Messages that became dead letters in that time.")
    leases_lost: int = Field(
        description="Messages that came back to the queue in that time while they were worked on."
    )
    backlog: QueueState | None = Field(description="The queue. Null if none is served or read.")
    boundaries: list[Boundary] = Field(
        description="What the consumers depend on. Empty if no queue is served."
    )
    stages: list[Stage]
    replicas: list[Replicas] = Field(
        description="The replicas of each deployment. Empty if Serve's controller does not answer, "
        "which then needs attention."
    )
    ingest: dict[str, Any] | None = Field(
        description="Health of the consumers, as in `/readyz`. Null if no queue is served."
    )
    last_failures: list[Failure]
    history: list[Moment] = Field(description="The last half hour, the oldest first.")
