"""An SQS client together with the queue that it is used for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


@dataclass(frozen=True, slots=True)
class QueueClient:
    """One SQS queue, and the client to call it with."""

    client: SQSClient
    url: str
    """URL of the queue."""
