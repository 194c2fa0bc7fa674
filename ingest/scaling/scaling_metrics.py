"""The metrics of the backlog policy, which Serve's controller records."""

from __future__ import annotations

from ingest.scaling.scaler import BacklogReading
from serve_app.serving.metrics import (
    DRAIN_SECONDS,
    IMAGE_SECONDS,
    QUEUE_MESSAGES,
    REPLICAS_NEEDED,
    Metrics,
)


class ScalingMetrics:
    """Records the decisions about one deployment, and the backlog that they follow."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def record_decision(self, deployment: str, needed: int, seconds_per_image: float) -> None:
        """Record a decision.

        Args:
            deployment: Name of the deployment.
            needed: Replicas that are needed, before the bounds and delays of Serve.
            seconds_per_image: Seconds per image of one busy replica.
        """
        self._metrics.set(REPLICAS_NEEDED, needed, deployment)
        self._metrics.set(IMAGE_SECONDS, seconds_per_image, deployment)

    def record_backlog(
        self, deployment: str, reading: BacklogReading, seconds_per_image: float, replicas: int
    ) -> None:
        """Record the backlog that a decision follows.

        Args:
            deployment: Name of the deployment that follows the backlog.
            reading: Messages of the queue.
            seconds_per_image: Seconds per image of one busy replica.
            replicas: Replicas that run or have been requested. Without any, the time in which they
                drain the backlog is not known, and keeps its last value.
        """
        self._metrics.set(QUEUE_MESSAGES, reading.waiting, "visible")
        self._metrics.set(QUEUE_MESSAGES, reading.in_flight, "not_visible")
        if replicas:
            work_s = (reading.waiting + reading.in_flight) * seconds_per_image
            self._metrics.set(DRAIN_SECONDS, work_s / replicas, deployment)
