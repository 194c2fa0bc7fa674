"""Measurements of one image, for the autoscaling policy and for the metrics."""

from __future__ import annotations

from serve_app.config import PipelineConfig
from serve_app.contracts.priority import Priority
from serve_app.contracts.rendered import Rendered
from serve_app.serving.metrics import IMAGE_BYTES, MASK_CONFIDENCE, Metrics

_STAGES_WITHOUT_IMAGING = {"fetch", "segment", "publish", "matting"}
"""Stages that keep no imaging thread busy."""

_WAYS_IN: dict[Priority, str] = {"interactive": "http", "bulk": "queue"}
"""Label of the way by which an image comes in."""


def replica_seconds(stages_ms: dict[str, float], config: PipelineConfig) -> float:
    """Return the seconds of a whole replica that an image takes.

    An image uses one of several imaging or matting threads. The kind of threads that it keeps
    busy for longer, relative to their number, limits the replica.

    Args:
        stages_ms: Milliseconds of each stage of the image.
        config: Numbers of threads.
    """
    imaging_ms = sum(ms for name, ms in stages_ms.items() if name not in _STAGES_WITHOUT_IMAGING)
    matting_ms = stages_ms.get("matting", 0.0)
    return max(imaging_ms / config.threads, matting_ms / config.matting_threads) / 1000


def record_input(metrics: Metrics, data: bytes, priority: Priority) -> None:
    """Record an image file that was read."""
    metrics.add(IMAGE_BYTES, len(data), _WAYS_IN[priority], "in")


def record_result(metrics: Metrics, rendered: Rendered, priority: Priority) -> None:
    """Record a finished cut-out."""
    size = len(rendered.data) + len(rendered.thumbnail or b"")
    metrics.add(IMAGE_BYTES, size, _WAYS_IN[priority], "out")
    cutout = rendered.cutout
    metrics.observe(MASK_CONFIDENCE, cutout.mask_confidence, cutout.model)
