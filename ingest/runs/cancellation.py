"""The mark in a run's folder that cancels the run.

Consumers look for it. The messages of a cancelled run end as failures with the code
``run_cancelled`` and without dead letters. A run that is sent again is resumed: the mark is
removed.
"""

from __future__ import annotations

from datetime import UTC, datetime

from ingest.runs.folder import RunFolder
from serve_app.contracts.base import Contract

_NAME = "cancelled.json"


class Cancellation(Contract):
    """The content of the mark. Whether the mark exists is all that counts."""

    cancelled_at: datetime


def cancel_run(folder: RunFolder) -> None:
    """Cancel a run. Blocks."""
    mark = Cancellation(cancelled_at=datetime.now(UTC))
    folder.write_json(_NAME, mark.model_dump_json())


def is_cancelled(folder: RunFolder) -> bool:
    """Return whether a run is cancelled. Blocks."""
    return folder.store.head(folder.bucket, folder.key(_NAME)) is not None


def lift_cancellation(folder: RunFolder) -> bool:
    """Resume a run that was cancelled, and return whether it was. Blocks."""
    if not is_cancelled(folder):
        return False
    folder.delete([folder.key(_NAME)])
    return True
