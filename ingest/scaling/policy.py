"""The backlog policy: Ray Serve's autoscaling policy that drains the queue in time.

Serve calls a policy in its controller every 0.1 s. A call that blocks would hold up every
deployment, and one that raises would end that round for the other applications too. Therefore a
thread reads the queue, and a call only computes from the last reading. The computation is
``Scaler``, which the simulation of ``foreedge plan`` runs as well. Serve applies the delays and
the bounds.

Serve pickles this module by value, so everything at module level must be picklable.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from ray.serve.config import AutoscalingContext

from ingest.scaling.policy_settings import PolicySettings
from ingest.scaling.scaler import BacklogReading, Scaler
from ingest.scaling.scaling_metrics import ScalingMetrics
from ingest.sqs.backlog import read_backlog
from ingest.sqs.queue_client import QueueClient
from serve_app.aws import aws_client
from serve_app.config import AwsConfig
from serve_app.error_text import safe_text
from serve_app.serving.kept_reports import keep_controller_reports
from serve_app.serving.ray_metrics import process_metrics
from serve_app.serving.scaling_trouble import TroubleNotStored, report_scaling_trouble
from serve_app.serving.service_time import SECONDS_PER_IMAGE

# Serve's own logger, so that the policy writes to the controller's log.
_logger = logging.getLogger("ray.serve")

_MEASURED_EVERY_S = 1.0
_FAILURES_UNTIL_REPORTED = 3


class BacklogReader:
    """Reads the backlog of a queue periodically, in a thread that ends with this object."""

    def __init__(self, queue_url: str, aws: AwsConfig, period_s: float) -> None:
        self._latest: list[BacklogReading] = []
        self._stop = threading.Event()
        # The thread holds no reference to this object, which could otherwise not be collected.
        threading.Thread(
            target=_read_periodically,
            args=(queue_url, aws, period_s, self._latest, self._stop),
            name="backlog",
            daemon=True,
        ).start()
        weakref.finalize(self, self._stop.set)

    @property
    def latest(self) -> BacklogReading | None:
        """The last reading, however old. None before the first one."""
        return self._latest[0] if self._latest else None


class BacklogHealth:
    """Reports whether the backlog of a queue can be read: to the log, and to the ingest's health.

    One refusal may be one of many answers, so three in a row make the ingest unhealthy.
    """

    def __init__(self, queue_url: str, report: Callable[[str, str | None], None]) -> None:
        """Start without readings.

        Args:
            queue_url: URL of the queue.
            report: Function that reports to the health what is wrong, or None if nothing is. If it
                raises ``TroubleNotStored``, it is called again after the next reading.
        """
        self._queue_url = queue_url
        self._report = report
        self._failures = 0
        # It is not known what an earlier controller has reported last.
        self._reported: str | None = "unknown"

    def note_failure(self, error: Exception) -> None:
        """Note that a reading failed."""
        self._failures += 1
        if self._failures == 1:
            _logger.warning("The backlog of %s cannot be read: %s", self._queue_url, error)
        if self._failures >= _FAILURES_UNTIL_REPORTED:
            self._report_once(
                f"autoscaling: Serve's controller cannot read the backlog: {safe_text(str(error))}"
            )

    def note_success(self) -> None:
        """Note that a reading succeeded."""
        if self._failures:
            _logger.warning("The backlog of %s can be read again", self._queue_url)
        self._failures = 0
        self._report_once(None)

    def _report_once(self, trouble: str | None) -> None:
        if trouble == self._reported:
            return
        try:
            self._report(self._queue_url, trouble)
        except TroubleNotStored as error:
            _logger.warning("/readyz cannot say whether the backlog can be read: %s", error)
        else:
            self._reported = trouble


class BacklogPolicy:
    """The autoscaling policy of one deployment, as Ray Serve calls it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Start reading the queue, if there is one.

        Args:
            settings: A ``PolicySettings`` as JSON, which is how Serve stores it.
        """
        loaded = PolicySettings.model_validate(settings)
        self._scaler = Scaler(
            loaded.goals,
            loaded.seconds_per_image,
            loaded.slots,
            permits=loaded.permits,
            now_s=time.monotonic(),
        )
        self._measured_at_s = -math.inf
        self._failing = False
        self._metrics = ScalingMetrics(process_metrics())
        self._reader = (
            None
            if loaded.queue_url is None
            else BacklogReader(loaded.queue_url, loaded.aws, loaded.read_period_s)
        )

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas that are needed, and an empty state."""
        try:
            needed = self._decide(ctx)
        # If it were raised, it would end the round for every other application as well.
        except Exception:
            if not self._failing:
                _logger.exception(
                    "The backlog policy failed for %s, which keeps its replicas", ctx.deployment_id
                )
            self._failing = True
            return ctx.target_num_replicas, {}
        self._failing = False
        return needed, {}

    def _decide(self, ctx: AutoscalingContext) -> int:
        now_s = time.monotonic()
        measured = now_s - self._measured_at_s >= _MEASURED_EVERY_S
        if measured:
            self._measured_at_s = now_s
            self._apply_measurements(ctx)
        reading = BacklogReading(0, 0, now_s) if self._reader is None else self._reader.latest
        current = ctx.target_num_replicas
        needed = self._scaler.decide(reading, ctx.total_num_requests, current, now_s)
        if measured:
            seconds_per_image = self._scaler.seconds_per_image
            name = ctx.deployment_id.name
            keep_controller_reports(ctx.deployment_id.app_name)
            self._metrics.record_decision(name, needed, seconds_per_image)
            if self._reader is not None and reading is not None:
                self._metrics.record_backlog(name, reading, seconds_per_image, current)
        return needed

    def _apply_measurements(self, ctx: AutoscalingContext) -> None:
        by_replica = (ctx.aggregated_metrics or {}).get(SECONDS_PER_IMAGE)
        if by_replica:
            self._scaler.apply_measurement(sum(by_replica.values()) / len(by_replica))


def _read_periodically(
    queue_url: str,
    aws: AwsConfig,
    period_s: float,
    latest: list[BacklogReading],
    stop: threading.Event,
) -> None:
    client: Any = None
    health = BacklogHealth(queue_url, report_scaling_trouble)
    while not stop.is_set():
        try:
            client = client or aws_client("sqs", aws, connections=1)
            backlog = read_backlog(QueueClient(client, queue_url))
            latest[:] = [BacklogReading(backlog.waiting, backlog.in_flight, time.monotonic())]
        # Whatever the error is, the next reading may succeed. Until then the policy does without.
        except Exception as error:  # noqa: BLE001
            health.note_failure(error)
        else:
            health.note_success()
        stop.wait(period_s)
