"""The backlog policy: how many replicas a deployment needs to drain the queue in time.

Serve calls a policy in its controller every 0.1 s. A call that blocks holds up every deployment,
and one that raises stops that round for other applications too: so the queue is read in a thread,
and a call is arithmetic on the last reading. ``Scaler`` is that arithmetic with its memory; the
simulation of ``foreedge plan`` runs the same one. Serve applies the delays and the bounds.

Serve pickles this module by value: what it keeps at module level must be picklable.
"""

from __future__ import annotations

import logging
import math
import threading
import time
import weakref
from typing import Any

from ray.serve.config import AutoscalingContext

from ingest.scaling.scaler import BacklogReading, Goals, Scaler
from serve_app.aws import aws_client
from serve_app.config import AwsConfig
from serve_app.serving.service_time import SECONDS_PER_IMAGE

# Serve's own: what the policy has to say belongs in the controller's log.
_logger = logging.getLogger("ray.serve")

_MEASURED_EVERY_S = 1.0
_LATE_PERIODS = 4
_COUNTS: tuple[Any, ...] = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
)


class BacklogReader:
    """Reads the number of messages of a queue, in a thread that ends with its owner."""

    def __init__(self, queue_url: str, aws: AwsConfig, period_s: float) -> None:
        self._latest: list[BacklogReading] = []
        self._stop = threading.Event()
        # The thread has no reference to the reader, or neither would ever be collected.
        threading.Thread(
            target=_read_forever,
            args=(queue_url, aws, period_s, self._latest, self._stop),
            name="backlog",
            daemon=True,
        ).start()
        weakref.finalize(self, self._stop.set)

    @property
    def latest(self) -> BacklogReading | None:
        """The last reading, however old; None before the first one."""
        return self._latest[0] if self._latest else None


class BacklogPolicy:
    """A deployment's autoscaling policy, as Ray Serve calls it."""

    def __init__(
        self,
        *,
        drain_s: float,
        answer_s: float,
        away_after_s: float,
        seconds_per_image: float,
        slots: float,
        permits: float,
        queue_url: str | None,
        aws: dict[str, Any],
        read_period_s: float,
    ) -> None:
        """Make a policy; the arguments are JSON, since Serve stores them so.

        Args:
            drain_s: See Goals.
            answer_s: See Goals.
            away_after_s: See Goals.
            seconds_per_image: Of one replica, until the replicas have measured it.
            slots: Ongoing requests that make a replica fully busy.
            permits: Jobs that all ingest actors together have in flight at most.
            queue_url: None: the deployment follows its ongoing requests alone.
            aws: Settings of AwsConfig.
            read_period_s: Between two readings of the queue.
        """
        goals = Goals(drain_s, answer_s, _LATE_PERIODS * read_period_s, away_after_s)
        self._scaler = Scaler(
            goals, seconds_per_image, slots, permits=permits, now_s=time.monotonic()
        )
        self._measured_at_s = -math.inf
        self._failing = False
        self._reader = (
            None if queue_url is None else BacklogReader(queue_url, AwsConfig(**aws), read_period_s)
        )

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return the replicas that are needed, and no state."""
        try:
            needed = self._decide(ctx)
        # Raised from here, it would end the round for every other application as well.
        except Exception:
            if not self._failing:
                _logger.exception("no decision for %s, which keeps its replicas", ctx.deployment_id)
            self._failing = True
            return ctx.target_num_replicas, {}
        self._failing = False
        return needed, {}

    def _decide(self, ctx: AutoscalingContext) -> int:
        now_s = time.monotonic()
        if now_s - self._measured_at_s >= _MEASURED_EVERY_S:
            self._measured_at_s = now_s
            self._take_measurements(ctx)
        reading = BacklogReading(0, 0, now_s) if self._reader is None else self._reader.latest
        current = ctx.target_num_replicas
        return self._scaler.decide(reading, ctx.total_num_requests, current, now_s)

    def _take_measurements(self, ctx: AutoscalingContext) -> None:
        by_replica = (ctx.aggregated_metrics or {}).get(SECONDS_PER_IMAGE)
        if by_replica:
            self._scaler.measured(sum(by_replica.values()) / len(by_replica))


def read_queue(client: Any, queue_url: str) -> tuple[int, int]:
    """Return the messages that wait and those in flight, by SQS's own approximate counts."""
    answer = client.get_queue_attributes(QueueUrl=queue_url, AttributeNames=list(_COUNTS))
    waiting, in_flight = (int(answer["Attributes"][name]) for name in _COUNTS)
    return waiting, in_flight


def _read_forever(
    queue_url: str,
    aws: AwsConfig,
    period_s: float,
    latest: list[BacklogReading],
    stop: threading.Event,
) -> None:
    client: Any = None
    failing = False
    while not stop.is_set():
        try:
            client = client or aws_client("sqs", aws, connections=1)
            latest[:] = [BacklogReading(*read_queue(client, queue_url), time.monotonic())]
        # Whatever it is, the next reading may succeed; without one the policy does without.
        except Exception as error:  # noqa: BLE001
            if not failing:
                _logger.warning("the backlog of %s cannot be read: %s", queue_url, error)
            failing = True
        else:
            if failing:
                _logger.warning("the backlog of %s is read again", queue_url)
            failing = False
        stop.wait(period_s)
