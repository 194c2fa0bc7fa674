"""The metrics of a consumer, which are read from its counters now and then.

The consumer itself only counts: it settles thousands of messages a second, and a call of Ray's
metrics for each of them would cost as much as the rest of its bookkeeping.
"""

from __future__ import annotations

from collections import Counter

from ingest.consumer.stats import ConsumerStats, Stored
from ingest.sqs.backlog import Backlog
from serve_app.serving.metrics import (
    CONSUMER_HEALTHY,
    DEAD_LETTERS,
    EMPTY_RECEIVES,
    HEARTBEATS,
    IMAGES,
    JOBS_ISOLATED,
    LEASES_LOST,
    LEDGER_LAG_SECONDS,
    LEDGER_PART_SECONDS,
    LEDGER_RECORDS,
    MESSAGES_DELETED,
    MESSAGES_IN_FLIGHT,
    MESSAGES_RECEIVED,
    MESSAGES_RELEASED,
    MESSAGES_RETRIED,
    MESSAGES_UNSETTLED,
    OLDEST_RECEIVED_SECONDS,
    PERMITS_FREE,
    QUEUE_MESSAGES,
    RECEIVES,
    Metrics,
    Totals,
)


class ConsumerMetrics:
    """Records what one consumer has counted."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._totals = Totals(metrics)

    def record(self, stats: ConsumerStats, stored: Counter[Stored], *, healthy: bool) -> None:
        """Record the counters of the consumer.

        Args:
            stats: Counters since the start of the consumer.
            stored: Numbers of stored outcomes since then.
            healthy: Whether messages are received and their jobs are run.
        """
        for metric, total in (
            (MESSAGES_RECEIVED, stats.received),
            (MESSAGES_DELETED, stats.deleted),
            (MESSAGES_RELEASED, stats.released),
            (DEAD_LETTERS, stats.dead_lettered),
            (LEASES_LOST, stats.lease_lost),
            (HEARTBEATS, stats.heartbeats),
            (RECEIVES, stats.receives),
            (EMPTY_RECEIVES, stats.empty_receives),
            (JOBS_ISOLATED, stats.alone),
        ):
            self._totals.follow(metric, total)
        for code, total in stats.retried.items():
            self._totals.follow(MESSAGES_RETRIED, total, code)
        for labels, total in stored.items():
            self._totals.follow(IMAGES, total, "queue", *labels)
        self._metrics.set(MESSAGES_IN_FLIGHT, stats.in_flight)
        self._metrics.set(MESSAGES_UNSETTLED, stats.unsettled)
        self._metrics.set(PERMITS_FREE, stats.permits_free)
        self._metrics.set(OLDEST_RECEIVED_SECONDS, stats.oldest_received_s)
        self._metrics.set(LEDGER_LAG_SECONDS, stats.ledger_lag_s)
        self.record_health(healthy=healthy)

    def record_health(self, *, healthy: bool) -> None:
        """Record whether messages are received and their jobs are run."""
        self._metrics.set(CONSUMER_HEALTHY, healthy)

    def record_part(self, records: int, seconds: float) -> None:
        """Record a part of the ledger.

        Args:
            records: Number of its records.
            seconds: Seconds from its first record until it was stored.
        """
        self._metrics.add(LEDGER_RECORDS, records)
        self._metrics.observe(LEDGER_PART_SECONDS, seconds)


def record_backlog(metrics: Metrics, backlog: Backlog) -> None:
    """Record the messages of the queue."""
    metrics.set(QUEUE_MESSAGES, backlog.waiting, "visible")
    metrics.set(QUEUE_MESSAGES, backlog.in_flight, "not_visible")
