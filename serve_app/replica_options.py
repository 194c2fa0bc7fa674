"""The deployment options that decide how many replicas run: a fixed number or autoscaling."""

from __future__ import annotations

import logging
from typing import Any

from ray.serve._private.constants import (
    RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH,
    RAY_SERVE_USE_GRPC_BY_DEFAULT,
)
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from ingest.scaling.policy import BacklogPolicy
from ingest.scaling.policy_settings import PolicySettings
from serve_app.config import AppConfig, QueueConfig, ScalingConfig
from serve_app.errors import InvalidConfig
from serve_app.serving.ray_environment import MESSAGE_BYTES

_logger = logging.getLogger(__name__)

_ENVELOPE_BYTES = 64 * 1024
"""Room, in bytes, for a recipe and for what Serve adds to an image in a message."""


def check_that_images_fit_into_messages(config: AppConfig) -> None:
    """Check that Ray Serve passes the largest images from one replica to another.

    Ray's own limit of 4 MiB would refuse them one by one, as if another attempt could help.

    Raises:
        InvalidConfig: The limit of gRPC between replicas is below ``limits.max_bytes``.
    """
    if not RAY_SERVE_USE_GRPC_BY_DEFAULT:
        # Ray's object store has no such limit.
        return
    limit = RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH
    if limit < config.limits.max_bytes + _ENVELOPE_BYTES:
        raise InvalidConfig(
            f"limits.max_bytes ({config.limits.max_bytes:,}) exceeds what Ray Serve passes between "
            f"replicas ({limit:,} bytes with the envelope). Set the environment variable "
            f"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH={MESSAGE_BYTES} for Ray, or lower "
            "limits.max_bytes."
        )


def max_ongoing_requests(max_ongoing: int, config: AppConfig) -> int:
    """Return the images that a replica accepts from Serve: the queue's and all requests.

    What a replica does not accept waits in Serve, in the order of arrival. A request must not wait
    there behind images of the queue, so there is always room for it.

    Args:
        max_ongoing: Number of images from the queue that the replica accepts.
        config: Settings of the application.
    """
    scaling = config.autoscaling
    endpoints = config.http.replicas if scaling is None else scaling.max_replicas
    return max_ongoing + endpoints * config.http.max_concurrent


def warn_if_images_wait_in_serve(config: AppConfig) -> None:
    """Warn if the queue's images are more than the pipelines and the models accept of them.

    The others wait: in SqsIngest if the number of replicas is fixed, otherwise in Serve, which
    halves the throughput (docs/decisions/0009).
    """
    if config.queue is None:
        return
    sent = config.queue.consumers * config.queue.max_in_flight
    accepting = {"pipeline": config.pipeline.replicas * config.pipeline.max_ongoing}
    if config.segmenter.placement == "deployment":
        accepting["segmenter"] = config.segmenter.replicas * config.segmenter.max_ongoing
    for section, accepted in accepting.items():
        if sent > accepted:
            _logger.warning(
                "Up to %d images of the queue are in flight, and the %s replicas accept %d. Raise "
                "%s.max_ongoing, or lower queue.max_in_flight.",
                sent,
                section,
                accepted,
                section,
            )


def segmenter_replicas(name: str, config: AppConfig) -> dict[str, Any]:
    """Return the replica options of one model's Segmenter."""
    options, scaling = config.segmenter, config.autoscaling
    if scaling is None:
        return replica_options(config, options.replicas)
    threads = options.threads if options.execution == "fan_out" else 1
    # Few messages need a later model, which is asked if an earlier one fails, or one on request.
    queue = config.queue if name == config.models[0] else None
    policy = _backlog_policy(
        config,
        scaling,
        queue,
        seconds_per_image=scaling.segment_s / threads,
        slots=options.threads if options.execution == "fan_out" else options.max_batch_size,
    )
    return replica_options(config, options.replicas, policy=policy)


def pipeline_replicas(config: AppConfig) -> dict[str, Any]:
    """Return the replica options of CutoutPipeline."""
    options, scaling = config.pipeline, config.autoscaling
    if scaling is None:
        return replica_options(config, options.replicas)
    # Images that wait for the Segmenter keep none of the pipeline's threads busy.
    waits = 1 + scaling.segment_s / scaling.pixels_s
    policy = _backlog_policy(
        config,
        scaling,
        config.queue,
        seconds_per_image=scaling.pixels_s / options.threads,
        slots=min(options.threads * waits, options.max_ongoing),
    )
    return replica_options(config, options.replicas, policy=policy)


def _backlog_policy(
    config: AppConfig,
    scaling: ScalingConfig,
    queue: QueueConfig | None,
    *,
    seconds_per_image: float,
    slots: float,
) -> AutoscalingPolicy:
    settings = PolicySettings(
        # The upscale delay cannot be made up for, so the replicas are sized for the time after it.
        drain_s=scaling.drain_target_s - scaling.upscale_delay_s,
        answer_s=scaling.answer_target_s,
        away_after_s=scaling.away_after_s,
        read_period_s=scaling.read_period_s,
        seconds_per_image=seconds_per_image,
        slots=slots,
        permits=0 if queue is None else queue.consumers * queue.max_in_flight,
        queue_url=None if queue is None else queue.url,
        aws=config.aws,
    )
    return AutoscalingPolicy(
        policy_function=BacklogPolicy,
        policy_kwargs={"settings": settings.model_dump(mode="json")},
    )


def replica_options(config: AppConfig, replicas: int, **follows: Any) -> dict[str, Any]:
    """Return the replica options of a deployment.

    Args:
        config: The configuration. Without ``autoscaling`` the number of replicas is fixed.
        replicas: The fixed number, or the minimum with which autoscaling starts.
        **follows: What decides on the number, as fields of Serve's AutoscalingConfig.
    """
    scaling = config.autoscaling
    if scaling is None:
        return {"num_replicas": replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=replicas,
            max_replicas=scaling.max_replicas,
            upscale_delay_s=scaling.upscale_delay_s,
            downscale_delay_s=scaling.downscale_delay_s,
            look_back_period_s=scaling.look_back_s,
            **follows,
        )
    }
