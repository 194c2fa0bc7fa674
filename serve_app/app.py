"""The application: the only place where deployments are wired.

``serve run serve_app.app:build``, a Serve YAML with ``import_path: serve_app.app:build``, and
``foreedge serve`` all come here.
"""

from __future__ import annotations

import logging
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from ingest.consumer.deployment import SqsIngest
from ingest.runs.submissions import SqsJobs
from serve_app.config import AppConfig, QueueConfig
from serve_app.http.deployment import HttpApi
from serve_app.models.registry import check_model_exists
from serve_app.pipeline.deployment import CutoutPipeline
from serve_app.replica_options import pipeline_replicas, replica_options, segmenter_replicas
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
        check_model_exists(name, config)
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
            **replica_options(
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
