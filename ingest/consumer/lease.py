"""A lease, and the verdicts that end it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ingest.sqs.limits import VISIBILITY_MAX_S
from ingest.sqs.queue import Message

_RECEIPT_S = 30.0
"""Longest time in seconds between the hiding of a message by SQS and its arrival here."""

_SETTLE_S = 60.0

LONGEST_LEASE_S = VISIBILITY_MAX_S - _RECEIPT_S
"""Longest time in seconds from the receipt of a message for which SQS can hide it."""


@dataclass(slots=True, eq=False)
class Lease:
    """This consumer's hold on one delivery of a message."""

    message: Message
    received_at: float
    """Time of the receive, in seconds of the consumer's clock."""
    expires_at: float
    """Time at which SQS makes the message visible again, in seconds of the consumer's clock."""
    extended_at: float
    """Time of the receive or of the last extension, in seconds of the consumer's clock."""
    heartbeat: asyncio.Task[None] | None = None
    """Extension that is under way."""
    lost: bool = False
    released: bool = False
    deleted: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the deletion or the release has ended, whether it succeeded or not."""

    @property
    def handle(self) -> str:
        """Receipt handle, which names the delivery in calls of the queue."""
        return self.message.receipt_handle

    @property
    def jobs_end_at(self) -> float:
        """Time by which jobs must have ended to be settled, in seconds of the consumer's clock."""
        return self.received_at + LONGEST_LEASE_S - _SETTLE_S

    def hideable_s(self, now: float) -> float:
        """Return for how many seconds from now SQS can still hide the message.

        Args:
            now: The present time, in seconds of the consumer's clock.
        """
        return max(0.0, self.received_at + LONGEST_LEASE_S - now)


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Verdict on a message whose outcomes are stored: delete it."""


@dataclass(frozen=True, slots=True)
class Release:
    """Verdict on a message that is to be tried again: let SQS deliver it."""

    delay_s: float
    """Seconds until SQS may deliver the message."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Verdict on a message with a stored failure: copy it to the dead-letter queue, delete it."""

    code: str
    """Error code of the failure."""
    reason: str
    """Text of the failure."""
    job_id: str
    """Id of the job that failed."""
    retry_delay_s: float
    """Seconds until SQS may deliver the message again if it cannot be copied."""


Verdict = Acknowledge | Release | DeadLetter
