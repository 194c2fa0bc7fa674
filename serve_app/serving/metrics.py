"""The metrics of Foreedge: their definitions, and the interface by which code records them.

This module does not know Ray. Code records to a ``Metrics`` object, which is Ray's
(``serving.ray_metrics``) in a replica, and a plain one in tests. ``METRICS`` lists every metric,
and docs/operations/monitoring.md describes them.

Names begin with ``foreedge_`` and end with their base unit. Prometheus shows them as
``Metric.exported``. Labels have few values: never a job, a run or a key. Ray adds the deployment,
the replica and the application.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_IMAGES = (0.5, 1.5, 2.5, 4.5, 8.5, 16.5, 32.5)
"""Bounds around whole numbers. Ray counts each observation as the middle of its bucket, so that the
mean of batches of one is 1."""
_SHARES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1)
_OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """The definition of one metric. Each exists once, and is compared by identity."""

    name: str
    """Name in Ray."""
    kind: Literal["counter", "gauge", "histogram"]
    """Kind, as Prometheus defines it."""
    description: str
    """What is counted or measured, and its unit."""
    labels: tuple[str, ...] = ()
    """Names of the labels, in the order in which their values are passed."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets."""

    @property
    def exported(self) -> str:
        """Name in Prometheus, to which Ray adds a prefix and a counter's suffix."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


class Metrics(Protocol):
    """What code records metrics to. No method waits, and every thread may call each."""

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Add to a counter. An amount of 0 or less is ignored."""
        ...

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add an observation to a histogram."""
        ...


class Unrecorded:
    """The metrics of a process outside of Ray, which nobody reads. Implements ``Metrics``."""

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Do nothing."""

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Do nothing."""

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Do nothing."""


UNRECORDED = Unrecorded()
"""The default of everything that records metrics."""


class Totals:
    """Counters that follow totals which other code keeps."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._last: dict[tuple[Metric, tuple[str, ...]], float] = {}

    def follow(self, metric: Metric, total: float, *labels: str) -> None:
        """Add to a counter what a total has grown by since the last call."""
        key = (metric, labels)
        self._metrics.add(metric, total - self._last.get(key, 0), *labels)
        self._last[key] = total


class BoundedLabel:
    """A label whose values come from outside: the first few are kept, all others are one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def value(self, wanted: str) -> str:
        """Return the value to record, which is ``other`` for values beyond the limit."""
        if wanted not in self._known:
            if len(self._known) >= self._limit:
                return _OTHER
            self._known.add(wanted)
        return wanted


# the program

BUILD_INFO = Metric(
    "foreedge_build_info",
    "gauge",
    "Always 1. The labels name the program that the replica runs.",
    ("version", "revision", "architecture"),
)

# images

IMAGES = Metric(
    "foreedge_images",
    "counter",
    "Images that ended. way_in is queue or http, outcome is that of the ledger, code is an "
    "error code or empty, model is the one whose mask was used or empty.",
    ("way_in", "outcome", "code", "model"),
)
IMAGE_BYTES = Metric(
    "foreedge_image_bytes",
    "counter",
    "Bytes of image files that were read (direction in) and of results (direction out).",
    ("way_in", "direction"),
)
STAGE_SECONDS = Metric(
    "foreedge_stage_seconds",
    "histogram",
    "Seconds of one run of a stage of the pipeline.",
    ("stage",),
    _SECONDS,
)
MASK_CONFIDENCE = Metric(
    "foreedge_mask_confidence_ratio",
    "histogram",
    "Confidence of the mask of each result, from 0 to 1.",
    ("model",),
    _SHARES,
)
DECODED_BYTES = Metric(
    "foreedge_decoded_bytes",
    "gauge",
    "Bytes that decoded images hold of pipeline.max_decoded_bytes.",
)
DECODED_LIMIT_BYTES = Metric(
    "foreedge_decoded_limit_bytes", "gauge", "Value of pipeline.max_decoded_bytes, in bytes."
)

# models

MODEL_LOAD_SECONDS = Metric(
    "foreedge_model_load_seconds", "gauge", "Seconds that the load of the model took.", ("model",)
)
BATCH_IMAGES = Metric(
    "foreedge_batch_images", "histogram", "Images of each run of a model.", ("model",), _IMAGES
)
BATCH_WAIT_SECONDS = Metric(
    "foreedge_batch_wait_seconds",
    "histogram",
    "Seconds that the first image of a batch waited for a free slot of the model.",
    ("model",),
    _SECONDS,
)

# the consumer

MESSAGES_RECEIVED = Metric("foreedge_messages_received", "counter", "Messages received from SQS.")
MESSAGES_DELETED = Metric("foreedge_messages_deleted", "counter", "Messages deleted from SQS.")
MESSAGES_RELEASED = Metric(
    "foreedge_messages_released", "counter", "Messages given back to SQS, for any reason."
)
MESSAGES_RETRIED = Metric(
    "foreedge_messages_retried",
    "counter",
    "Messages given back because of a transient error, by its code.",
    ("code",),
)
DEAD_LETTERS = Metric(
    "foreedge_dead_letters", "counter", "Messages copied to the dead-letter queue."
)
LEASES_LOST = Metric(
    "foreedge_leases_lost", "counter", "Messages whose lease was lost before they were settled."
)
HEARTBEATS = Metric("foreedge_heartbeats", "counter", "Extensions of single leases.")
RECEIVES = Metric("foreedge_receives", "counter", "Receives that SQS answered.")
EMPTY_RECEIVES = Metric("foreedge_empty_receives", "counter", "Receives that found no message.")
JOBS_ISOLATED = Metric(
    "foreedge_jobs_isolated", "counter", "Jobs that ran alone because their replica was lost."
)
MESSAGES_IN_FLIGHT = Metric(
    "foreedge_messages_in_flight", "gauge", "Messages whose jobs run or wait for a place."
)
MESSAGES_UNSETTLED = Metric(
    "foreedge_messages_unsettled",
    "gauge",
    "Messages held, whether their jobs run or they wait for the ledger or a deletion.",
)
PERMITS_FREE = Metric(
    "foreedge_permits_free", "gauge", "Messages that could be dispatched in addition."
)
CONSUMER_HEALTHY = Metric(
    "foreedge_consumer_healthy",
    "gauge",
    "1 if the consumer receives messages and runs their jobs, else 0. /readyz says why.",
)
OLDEST_RECEIVED_SECONDS = Metric(
    "foreedge_oldest_received_seconds",
    "gauge",
    "Age, in seconds, of the oldest message of the last receive, and 0 if it found none.",
)
QUEUE_MESSAGES = Metric(
    "foreedge_queue_messages",
    "gauge",
    "Messages of the queue as SQS counts them: those that wait (state visible) and those that "
    "consumers hold (state not_visible). Several processes report the same queue.",
    ("state",),
)

# the ledger

LEDGER_RECORDS = Metric("foreedge_ledger_records", "counter", "Records stored in the ledger.")
LEDGER_PART_SECONDS = Metric(
    "foreedge_ledger_part_seconds",
    "histogram",
    "Seconds from the first record of a part until the part was stored.",
    (),
    _SECONDS,
)
LEDGER_LAG_SECONDS = Metric(
    "foreedge_ledger_lag_seconds",
    "gauge",
    "Seconds for which the oldest record that is not stored has waited.",
)

# the catalog

CATALOG_JOBS = Metric(
    "foreedge_catalog_jobs",
    "gauge",
    "Jobs of the collection's table by their state. All consumers report the same table.",
    ("state",),
)
CATALOG_OLDEST_PENDING_SECONDS = Metric(
    "foreedge_catalog_oldest_pending_seconds",
    "gauge",
    "Seconds for which a job has said pending since it was queued or sent again, at most. 0 if "
    "none does.",
)
CATALOG_STALE_JOBS = Metric(
    "foreedge_catalog_stale_jobs",
    "gauge",
    "Jobs that say processing, and that no consumer can still work on.",
)
CATALOG_DATABASE_HEALTHY = Metric(
    "foreedge_catalog_database_healthy",
    "gauge",
    "1 if the database of the catalog lets jobs work, else 0. /readyz says why.",
)
CATALOG_TRANSACTION_SECONDS = Metric(
    "foreedge_catalog_transaction_seconds",
    "histogram",
    "Seconds of each transaction on the collection's tables, from its begin to its commit.",
    (),
    _SECONDS,
)
CATALOG_REPETITIONS = Metric(
    "foreedge_catalog_repetitions",
    "counter",
    "Transactions that were rolled back and are tried again. reason is rows_held or "
    "connection_lost.",
    ("reason",),
)

# scaling

DRAIN_SECONDS = Metric(
    "foreedge_scaling_drain_seconds",
    "gauge",
    "Seconds in which the present replicas drain the backlog, as the policy computes it.",
    ("deployment",),
)
IMAGE_SECONDS = Metric(
    "foreedge_scaling_image_seconds",
    "gauge",
    "Seconds per image of one busy replica, as the policy uses them.",
    ("deployment",),
)
REPLICAS_NEEDED = Metric(
    "foreedge_scaling_replicas_needed",
    "gauge",
    "Replicas that the policy asks for, before the bounds and delays of Serve.",
    ("deployment",),
)

# HTTP

HTTP_REQUESTS = Metric(
    "foreedge_http_requests",
    "counter",
    "Requests that ended, by route, HTTP status and the error's code, or empty.",
    ("route", "status", "code"),
)
HTTP_REQUEST_SECONDS = Metric(
    "foreedge_http_request_seconds",
    "histogram",
    "Seconds from the start of a request until the last byte of its answer.",
    ("route",),
    _SECONDS,
)
HTTP_REFUSALS = Metric(
    "foreedge_http_refusals",
    "counter",
    "Requests refused because of a limit or a missing key. limit is the setting that holds the "
    "limit, ray_serve, or empty, api_key the name of the key or empty.",
    ("code", "limit", "api_key"),
)

METRICS: tuple[Metric, ...] = tuple(each for each in globals().values() if isinstance(each, Metric))
"""Every metric, in the order of definition."""
