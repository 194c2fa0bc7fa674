"""The application: the only place where deployments are wired.

``serve run serve_app.app:build``, a Serve YAML with ``import_path: serve_app.app:build``, and
``foreedge serve`` all come here.
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application

from ingest.posted import SqsJobs
from ingest.sqs_ingest import SqsIngest
from serve_app.config import AppConfig, QueueConfig
from serve_app.http_api import HttpApi
from serve_app.models.registry import check_known
from serve_app.pipeline import CutoutPipeline
from serve_app.segmenter import Segmenter

_INGEST_CPUS = 0.1
_SETTLE_S = 8.0
_POLL_SLACK_S = 2.0


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
    segmenters = {name: _segmenter(name, config) for name in config.models}
    pipeline = (
        serve.deployment(CutoutPipeline)
        .options(
            num_replicas=config.pipeline.replicas,
            max_ongoing_requests=config.pipeline.max_ongoing,
            ray_actor_options={"num_cpus": config.pipeline.num_cpus},
        )
        .bind(config, segmenters)
    )
    most = 2 * (config.http.max_concurrent + config.http.max_uploads)
    ingest = None if config.queue is None else _ingest(config, config.queue, pipeline)
    return (
        serve.deployment(HttpApi)
        .options(
            num_replicas=config.http.replicas,
            # Twice: what is over the limits is refused by us, with a code, and does not wait.
            max_ongoing_requests=most,
            # Of each proxy; past it the proxy refuses.
            max_queued_requests=most,
            ray_actor_options={"num_cpus": config.http.num_cpus},
        )
        .bind(config, pipeline, ingest, SqsJobs(config))
    )


def _segmenter(name: str, config: AppConfig) -> Application:
    options = config.segmenter
    return (
        serve.deployment(Segmenter)
        .options(
            name=f"Segmenter-{name}",
            num_replicas=options.replicas,
            max_ongoing_requests=options.max_ongoing,
            ray_actor_options={"num_cpus": options.num_cpus},
        )
        .bind(name, config)
    )


def _ingest(config: AppConfig, queue: QueueConfig, pipeline: Application) -> Application:
    # A stop gives jobs their grace time, and waits for the ledger and for a long poll to end.
    stop_s = max(queue.stop_grace_s + _SETTLE_S, queue.long_poll_s + _POLL_SLACK_S)
    return (
        serve.deployment(SqsIngest)
        .options(
            num_replicas=queue.consumers,
            max_replicas_per_node=1,
            graceful_shutdown_timeout_s=stop_s,
            ray_actor_options={"num_cpus": _INGEST_CPUS},
        )
        .bind(config, pipeline)
    )
