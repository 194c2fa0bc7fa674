"""The application, and the only place where deployments are wired.

``serve run serve_app.app:build``, ``import_path: serve_app.app:build`` in a Serve YAML file, and
``foreedge serve`` all call ``build``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from ingest.consumer.deployment import SqsIngest
from ingest.consumer.stop_times import longest_stop_s
from ingest.runs.submissions import SqsJobs
from serve_app.config import AppConfig, QueueConfig
from serve_app.config.catalog import missing_packages
from serve_app.errors import InvalidConfig
from serve_app.http.deployment import HttpApi
from serve_app.models.registry import check_model_exists
from serve_app.pipeline.deployment import CutoutPipeline
from serve_app.replica_options import (
    check_that_images_fit_into_messages,
    max_ongoing_requests,
    pipeline_replicas,
    replica_options,
    segmenter_replicas,
    warn_if_images_wait_in_serve,
)
from serve_app.segmenter.deployment import Segmenter

if TYPE_CHECKING:
    from serve_app.contracts.retry import QueueFailedJobs

_STOP_NOTICE_S = 0.1
_NO_ACCESS_LOG = LoggingConfig(enable_access_log=False)
"""Logging of the deployments that only other deployments call. The access log of HttpApi and the
ledger already name every image."""


def build(args: dict[str, Any]) -> Application:
    """Return the application.

    Args:
        args: Settings, see ``AppConfig``.

    Raises:
        InvalidConfig: A setting is invalid, or a model is unknown.
    """
    config = AppConfig.load(args)
    for name in config.served_models:
        try:
            check_model_exists(name, config)
        except InvalidConfig as error:
            raise InvalidConfig(f"models: {error.message}") from error
    check_that_images_fit_into_messages(config)
    warn_if_images_wait_in_serve(config)
    segmenters = {}
    if config.segmenter.placement == "deployment":
        segmenters = {name: _segmenter_deployment(name, config) for name in config.served_models}
    pipeline = _pipeline_deployment(config, segmenters)
    ingest = None if config.queue is None else ingest_deployment(config, config.queue, pipeline)
    return _http_deployment(config, pipeline, ingest)


def _segmenter_deployment(name: str, config: AppConfig) -> Application:
    options = config.segmenter
    return (
        serve.deployment(Segmenter)
        .options(
            name=f"Segmenter-{name}",
            **segmenter_replicas(name, config),
            max_ongoing_requests=max_ongoing_requests(options.max_ongoing, config),
            logging_config=_NO_ACCESS_LOG,
            ray_actor_options={"num_cpus": options.num_cpus},
        )
        .bind(name, config)
    )


def _pipeline_deployment(config: AppConfig, segmenters: dict[str, Application]) -> Application:
    options = config.pipeline
    return (
        serve.deployment(CutoutPipeline)
        .options(
            **pipeline_replicas(config),
            max_ongoing_requests=max_ongoing_requests(options.max_ongoing, config),
            logging_config=_NO_ACCESS_LOG,
            ray_actor_options={"num_cpus": options.num_cpus},
        )
        .bind(config, segmenters)
    )


def ingest_deployment(config: AppConfig, queue: QueueConfig, pipeline: Application) -> Application:
    """Return the SqsIngest deployment, which sends jobs to the pipeline."""
    return (
        serve.deployment(SqsIngest)
        .options(
            num_replicas=queue.consumers,
            max_replicas_per_node=1,
            graceful_shutdown_timeout_s=longest_stop_s(queue),
            # Serve stops a replica only after this pause. When an application is deleted, all its
            # replicas stop, and a consumer must not take jobs for a pipeline that is gone.
            graceful_shutdown_wait_loop_s=_STOP_NOTICE_S,
            ray_actor_options={"num_cpus": QueueConfig.CONSUMER_CPUS},
        )
        .bind(config, pipeline)
    )


def _http_deployment(
    config: AppConfig, pipeline: Application, ingest: Application | None
) -> Application:
    options = config.http
    # Twice our own limits, so that HttpApi itself rejects what exceeds them, with an error code.
    most = 2 * (options.max_concurrent + options.max_uploads)
    return (
        serve.deployment(HttpApi)
        .options(
            **replica_options(
                config, options.replicas, target_ongoing_requests=options.max_concurrent / 2
            ),
            max_ongoing_requests=most,
            # Requests that wait at each replica behind HAProxy, or else at each of Serve's proxies.
            max_queued_requests=most,
            ray_actor_options={"num_cpus": options.num_cpus},
        )
        .bind(config, pipeline, ingest, SqsJobs(config), queue_failed=_queue_failed_jobs(config))
    )


def _queue_failed_jobs(config: AppConfig) -> QueueFailedJobs | None:
    """Return the jobs of the catalog that SQS did not take. None if no catalog is configured."""
    if config.catalog is None or config.queue is None:
        return None
    try:
        # SQLAlchemy and psycopg are in the extra ``catalog``, which few installations have.
        from ingest.catalog.retry import CatalogRetry
    except ImportError as error:
        raise missing_packages(error) from error
    return CatalogRetry(config.catalog, config.queue.url, config.aws)
