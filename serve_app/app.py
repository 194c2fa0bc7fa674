"""The application: the only place where deployments are wired.

``serve run serve_app.app:build``, a Serve YAML with ``import_path: serve_app.app:build``, and
``foreedge serve`` all come here.
"""

from __future__ import annotations

import logging
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from ingest.consumer.deployment import SqsIngest
from ingest.runs.submissions import SqsJobs
from ingest.scaling.policy import BacklogPolicy
from serve_app.config import AppConfig, QueueConfig, ScalingConfig
from serve_app.http.deployment import HttpApi
from serve_app.models.registry import check_known
from serve_app.pipeline.deployment import CutoutPipeline
from serve_app.segmenter.deployment import Segmenter

_logger = logging.getLogger(__name__)

_INGEST_CPUS = 0.1
_SETTLE_S = 8.0
_POLL_SLACK_S = 2.0
_STOP_HEARD_S = 0.1
_INNER_LOG = LoggingConfig(enable_access_log=False)
"""Of deployments that only others call: HttpApi's access log and the ledger have each image."""


def build(args: dict[str, Any]) -> Application:
    """Return the application.

    Args:
        args: Settings, see ``AppConfig``.

    Raises:
        InvalidConfig: A setting is wrong, or a model is not known.
    """
    config = AppConfig.load(args)
    for name in config.models:
        check_known(name, config)
    _warn_of_waits(config)
    segmenters = {}
    if config.segmenter.placement == "deployment":
        segmenters = {name: _segmenter(name, config) for name in config.models}
    pipeline = (
        serve.deployment(CutoutPipeline)
        .options(
            **pipeline_replicas(config),
            max_ongoing_requests=config.pipeline.max_ongoing,
            logging_config=_INNER_LOG,
            ray_actor_options={"num_cpus": config.pipeline.num_cpus},
        )
        .bind(config, segmenters)
    )
    most = 2 * (config.http.max_concurrent + config.http.max_uploads)
    ingest = None if config.queue is None else ingest_deployment(config, config.queue, pipeline)
    return (
        serve.deployment(HttpApi)
        .options(
            **_replicas(
                config,
                config.http.replicas,
                target_ongoing_requests=config.http.max_concurrent / 2,
            ),
            # Twice: what is over the limits is refused by us, with a code, and does not wait.
            max_ongoing_requests=most,
            # Of each replica behind HAProxy, else of each proxy; past it Serve refuses.
            max_queued_requests=most,
            ray_actor_options={"num_cpus": config.http.num_cpus},
        )
        .bind(config, pipeline, ingest, SqsJobs(config))
    )


def _warn_of_waits(config: AppConfig) -> None:
    """Warn where requests would wait in Serve, which costs half of the throughput."""
    most = config.http.replicas * config.http.max_concurrent
    if config.queue is not None:
        most += config.queue.consumers * config.queue.max_in_flight
    room = config.pipeline.replicas * config.pipeline.max_ongoing
    if room < most:
        _logger.warning(
            "up to %d images are sent to %d pipelines, which take %d: raise pipeline.max_ongoing, "
            "or lower http.max_concurrent or queue.max_in_flight",
            most,
            config.pipeline.replicas,
            room,
        )


def _segmenter(name: str, config: AppConfig) -> Application:
    options = config.segmenter
    return (
        serve.deployment(Segmenter)
        .options(
            name=f"Segmenter-{name}",
            **segmenter_replicas(name, config),
            max_ongoing_requests=options.max_ongoing,
            logging_config=_INNER_LOG,
            ray_actor_options={"num_cpus": options.num_cpus},
        )
        .bind(name, config)
    )


def ingest_deployment(config: AppConfig, queue: QueueConfig, pipeline: Application) -> Application:
    """Return SqsIngest, which dispatches to the pipeline."""
    # A stop gives jobs their grace time and waits for a long poll to end, then for the ledger.
    stop_s = max(queue.stop_grace_s, queue.long_poll_s + _POLL_SLACK_S) + _SETTLE_S
    return (
        serve.deployment(SqsIngest)
        .options(
            num_replicas=queue.consumers,
            max_replicas_per_node=1,
            graceful_shutdown_timeout_s=stop_s,
            # Serve lets a replica wait so long before it tells it to stop. Where an application is
            # deleted, every replica does, and jobs that find no pipeline must be taken no longer.
            graceful_shutdown_wait_loop_s=_STOP_HEARD_S,
            ray_actor_options={"num_cpus": _INGEST_CPUS},
        )
        .bind(config, pipeline)
    )


def segmenter_replicas(name: str, config: AppConfig) -> dict[str, Any]:
    """Return the options of a Segmenter that say how many replicas it has."""
    options, scaling = config.segmenter, config.autoscaling
    if scaling is None:
        return _replicas(config, options.replicas)
    threads = options.threads if options.execution == "fan_out" else 1
    # A model that is only asked where the first one fails sees few of the messages.
    queue = config.queue if name == config.models[0] else None
    policy = _backlog_policy(
        config,
        scaling,
        queue,
        seconds_per_image=scaling.segment_s / threads,
        slots=options.threads if options.execution == "fan_out" else options.max_batch_size,
    )
    return _replicas(config, options.replicas, policy=policy)


def pipeline_replicas(config: AppConfig) -> dict[str, Any]:
    """Return the options of CutoutPipeline that say how many replicas it has."""
    options, scaling = config.pipeline, config.autoscaling
    if scaling is None:
        return _replicas(config, options.replicas)
    # Its images spend part of their time in the Segmenter, and keep none of its threads busy.
    waits = 1 + scaling.segment_s / scaling.pixels_s
    policy = _backlog_policy(
        config,
        scaling,
        config.queue,
        seconds_per_image=scaling.pixels_s / options.threads,
        slots=min(options.threads * waits, options.max_ongoing),
    )
    return _replicas(config, options.replicas, policy=policy)


def _backlog_policy(
    config: AppConfig,
    scaling: ScalingConfig,
    queue: QueueConfig | None,
    *,
    seconds_per_image: float,
    slots: float,
) -> AutoscalingPolicy:
    settings = {
        # What the delay takes of the time cannot be won back: the replicas are sized for the rest.
        "drain_s": scaling.drain_target_s - scaling.upscale_delay_s,
        "answer_s": scaling.answer_target_s,
        "away_after_s": scaling.away_after_s,
        "read_period_s": scaling.read_period_s,
        "seconds_per_image": seconds_per_image,
        "slots": slots,
        "permits": 0 if queue is None else queue.consumers * queue.max_in_flight,
        "queue_url": None if queue is None else queue.url,
        "aws": config.aws.model_dump(mode="json"),
    }
    return AutoscalingPolicy(policy_function=BacklogPolicy, policy_kwargs=settings)


def _replicas(config: AppConfig, replicas: int, **follows: Any) -> dict[str, Any]:
    """Return the options of a deployment that say how many replicas it has.

    Args:
        config: Without ``autoscaling`` there are ``replicas``, always.
        replicas: The least, and those to start with.
        follows: What says how many there are to be, as Serve's AutoscalingConfig has it.
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
