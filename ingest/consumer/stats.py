"""The counters of a consumer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """What a consumer has done since its start, and what it holds now."""

    received: int
    """Messages received."""
    done: int
    """Jobs with a stored result, including those whose result existed already."""
    nothing_to_do: int
    """Messages without a job to be done: events of objects that are no images, or out of date."""
    failed: dict[str, int]
    """Jobs with a stored failure, by error code."""
    retried: dict[str, int]
    """Messages released because of a transient failure, by error code."""
    alone: int
    """Jobs that ran in isolation, because the replica that held them was lost."""
    released: int
    """Messages released, for any reason."""
    dead_lettered: int
    """Messages copied to the dead-letter queue."""
    lease_lost: int
    """Messages whose lease was lost before they were deleted or released."""
    deleted: int
    """Messages deleted."""
    heartbeats: int
    """Extensions of single leases."""
    in_flight: int
    """Messages whose jobs are running now, or wait for a place that refuses."""
    unsettled: int
    """Messages held now, whether their jobs are running or wait for the ledger or a deletion."""
    permits_free: int
    """Messages that could be dispatched now in addition. Those that wait need no permit."""
