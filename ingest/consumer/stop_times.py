"""How long a consumer may take to stop, and how it spends that time.

Serve kills a replica that takes longer. What it held would then stay hidden until its leases
expire, and messages that are recorded would come again.
"""

from __future__ import annotations

from ingest.consumer.leases import RELEASES_S
from serve_app.config import QueueConfig

CANCEL_S = 1.0
"""Time, in seconds, for which a consumer that stops waits for what it has cancelled."""

_POLL_SLACK_S = 2.0
"""Time, in seconds, by which a long poll may exceed ``queue.long_poll_s``."""
_FLUSH_S = 8.0
"""Time, in seconds, in which the last results must be written to the ledger, and the rest released,
once the jobs and the long poll have ended."""
_SETTLE_S = 5.0
"""Time, in seconds, that a ledger and a queue get in any case, as far as there is any left."""
_CLOSE_S = 1.0
"""Time, in seconds, that is left for closing the queue and the database."""


def longest_stop_s(config: QueueConfig) -> float:
    """Return the time, in seconds, after which Serve may kill a consumer that stops.

    Args:
        config: Settings of the queue.
    """
    return max(config.stop_grace_s, config.long_poll_s + _POLL_SLACK_S) + _FLUSH_S


class StopTimes:
    """The times of one stop. All times are in seconds of the consumer's clock."""

    def __init__(self, config: QueueConfig, now_s: float) -> None:
        """Begin a stop.

        Args:
            config: Settings of the queue.
            now_s: The present time.
        """
        self._grace_ends_at = now_s + config.stop_grace_s
        self._ends_at = now_s + longest_stop_s(config) - _CLOSE_S

    def settle_s(self, now_s: float, release_wait_s: float) -> float:
        """Return how long outcomes may be stored and messages deleted, before the rest is released.

        Time that the jobs did not need is left for a ledger and a queue that are slow.

        Args:
            now_s: The present time.
            release_wait_s: Seconds until messages may be released.
        """
        wanted_s = max(release_wait_s + _SETTLE_S, self._grace_ends_at - now_s)
        return self._left_s(now_s, wanted_s, CANCEL_S + RELEASES_S)

    def last_s(self, now_s: float, release_wait_s: float) -> float:
        """Return how long to wait at last for a long poll and for the ledger.

        Args:
            now_s: The present time.
            release_wait_s: Seconds until messages may be released.
        """
        return self._left_s(now_s, release_wait_s + CANCEL_S, 0)

    def _left_s(self, now_s: float, wanted_s: float, later_s: float) -> float:
        return max(0.0, min(wanted_s, self._ends_at - later_s - now_s))
