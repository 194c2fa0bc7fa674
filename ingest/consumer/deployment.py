"""SqsIngest: the Serve deployment around the consumer.

It is a deployment and not a detached actor, so that the controller restarts it when its node is
lost, ``serve deploy`` replaces it, and the dashboard shows it. Its loop is not a request that Serve
knows about: Serve learns from ``check_health`` whether the loop runs, and ends it by awaiting
``__del__``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from ray.serve.handle import DeploymentHandle

from ingest.consumer.cancelled_runs import CancelledRuns
from ingest.consumer.consumer import Consumer
from ingest.consumer.consumer_metrics import ConsumerMetrics, record_backlog
from ingest.consumer.stats import describe_failure
from ingest.consumer.troubles import (
    BOUNDARIES,
    Boundary,
    Trouble,
    describe_boundaries,
    first_reason,
)
from ingest.messages.parse import no_catalog
from ingest.runs.ledger import Ledger, OutcomeSink
from ingest.runs.ledger_check import check_ledger
from ingest.sqs.backoff import RETRY_BASE_S, RETRY_MAX_S, backoff_s
from ingest.sqs.queue import SqsQueue
from ingest.sqs.queue_client import check_url
from serve_app.config import AppConfig, QueueConfig
from serve_app.config.catalog import missing_packages
from serve_app.contracts.job import AnyJob, CatalogJob
from serve_app.contracts.outcome import Outcome
from serve_app.errors import (
    FatalError,
    ForeedgeError,
    InvalidConfig,
    PermanentError,
    QueueUnavailable,
    TransientError,
)
from serve_app.serving.handle_calls import call_deployment
from serve_app.serving.kept_reports import keep_replica_reports, own_report
from serve_app.serving.metrics import Metrics
from serve_app.serving.ray_metrics import (
    SAMPLED_EVERY_S,
    process_metrics,
    record_build,
)
from serve_app.serving.recent_metrics import RecentReport
from serve_app.serving.scaling_trouble import read_scaling_trouble
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore

if TYPE_CHECKING:
    from ingest.catalog.catalog import Catalog

T = TypeVar("T")

_logger = logging.getLogger(__name__)

_BACKLOG_EVERY_S = 15.0
"""Time, in seconds, between two readings of the backlog for the metrics. SQS updates its counts
within a minute, and each reading is a paid request."""


class SqsIngest:
    """Serves the configured queue for as long as the replica lives."""

    # It is asynchronous so that Serve runs it in the event loop of the consumer.
    async def __init__(  # type: ignore[misc]
        self, config: AppConfig, pipeline: DeploymentHandle
    ) -> None:
        """Start to serve, once every model is loaded and the queue answers.

        Args:
            config: Configuration with ``queue`` and ``ledger``.
            pipeline: Handle of the CutoutPipeline, whose ``process`` turns a Job into an Outcome.

        Raises:
            InvalidConfig: The queue cannot be served with this configuration. A queue that is
                unavailable does not raise: it is tried until it answers.
        """
        if config.queue is None or config.ledger is None:
            raise InvalidConfig("SqsIngest needs queue.url and ledger.bucket; set both")
        self._queue_config = config.queue.model_copy(
            update={"max_in_flight": accepted_in_flight(config, config.queue)}
        )
        self._ledger_config = config.ledger
        self._has_autoscaling = config.autoscaling is not None
        self._aws = config.aws
        self._pipeline = pipeline
        check_url(config.queue.url)
        self._store = open_store(config)
        self._metrics = process_metrics()
        self._consumer_metrics = ConsumerMetrics(self._metrics)
        record_part = self._consumer_metrics.record_part
        self._ledger = Ledger(self._store, config.ledger, on_stored=record_part)
        self._cancelled_runs = CancelledRuns.in_ledger(self._store, config.ledger)
        self._catalog = _open_catalog(
            config, config.queue.job_deadline_s, self._store, self._metrics
        )
        self._queue: SqsQueue | None = None
        self._consumer: Consumer | None = None
        self._trouble = Trouble("model", "the models are not loaded yet")
        self._serving = asyncio.create_task(self._serve())
        self._recording = asyncio.create_task(self._keep_recording())
        keep_replica_reports(self._report)

    async def check_health(self) -> None:
        """Raise if this replica does not serve any more and another one might. Serve calls this."""
        if self._serving.done() and not self._serving.cancelled():
            raise RuntimeError("the consumer has ended") from self._serving.exception()
        if self._consumer is not None and self._consumer.fatal is not None:
            raise self._consumer.fatal

    async def status(self) -> dict[str, Any]:
        """Return whether the queue is served, the reason if it is not, and the counters.

        ``boundaries`` has what the consumer depends on, with the reason of what is not well. Before
        it consumes, that is only what it waits for.
        """
        consumer = self._consumer
        troubles = [self._trouble] if consumer is None else consumer.troubles
        if self._has_autoscaling:
            scaling = await asyncio.to_thread(read_scaling_trouble, self._queue_config.url)
            troubles += [Trouble("autoscaling", scaling)] if scaling else []
        reason = first_reason(troubles, None if consumer is None else self._ledger.trouble)
        stats = {} if consumer is None else asdict(consumer.stats)
        catalog = None if self._catalog is None else await self._catalog.status()
        # A database that is unavailable is no reason to restart or to leave the queue alone.
        if catalog is not None and catalog["reason"]:
            troubles.append(Trouble("database", catalog["reason"]))
        return {
            "queue_url": self._queue_config.url,
            "healthy": reason is None,
            "reason": reason,
            "boundaries": describe_boundaries(self._known_boundaries(), troubles),
            **stats,
            **({} if catalog is None else {"catalog": catalog}),
        }

    def _known_boundaries(self) -> tuple[Boundary, ...]:
        """Return what is known to be well if nothing is wrong with it."""
        if self._consumer is None:
            return ()
        database: tuple[Boundary, ...] = () if self._catalog is None else ("database",)
        scaling: tuple[Boundary, ...] = ("autoscaling",) if self._has_autoscaling else ()
        return (*BOUNDARIES, *database, *scaling)

    async def recent(self) -> RecentReport:
        """Return what this replica has done lately, for the operations page."""
        return self._report()

    def _report(self) -> RecentReport:
        failed = () if self._consumer is None else tuple(self._consumer.failures)
        return own_report(map(describe_failure, failed))

    async def __del__(self) -> None:
        """Stop serving; Serve awaits this for up to ``graceful_shutdown_timeout_s``."""
        # If __init__ raised, there is nothing to stop.
        serving = getattr(self, "_serving", None)
        if serving is None:
            return
        if self._consumer is not None:
            await self._consumer.stop()
        serving.cancel()
        self._recording.cancel()
        await asyncio.wait({serving})
        self._record_consumer()
        if self._queue is not None:
            await self._queue.close()
        if self._catalog is not None:
            self._catalog.close()

    async def _serve(self) -> None:
        # A message received before that would wait for the models and use up its receives.
        await self._until_it_succeeds(self._wait_for_models)
        self._trouble = Trouble("ledger", "the ledger is not checked yet")
        await self._until_it_succeeds(self._check_ledger)
        process: Callable[[Any], Awaitable[Outcome]] = self._cancelled_runs.guard(self._process)
        ledger: OutcomeSink = self._ledger
        if self._catalog is not None:
            self._trouble = Trouble("database", "the catalog's database is not checked yet")
            await self._until_it_succeeds(self._catalog.check)
            process = self._catalog.process(process).run
            ledger = self._catalog.recorder(ledger)
        self._trouble = Trouble("queue", "the queue is not open yet")
        queue = self._queue = await self._until_it_succeeds(
            lambda: SqsQueue.open(self._queue_config, self._aws)
        )
        if self._catalog is not None:
            self._catalog.start_sweeps(self._queue_config.url)
        self._consumer = Consumer(
            queue,
            process,
            ledger,
            self._queue_config,
            part_records=self._ledger_config.part_records,
            part_interval_s=self._ledger_config.part_interval_s,
        )
        await self._consumer.run()

    async def _keep_recording(self) -> None:
        """Record the metrics of this replica until cancelled."""
        read_at_s = -math.inf
        while True:
            record_build(self._metrics)
            self._record_consumer()
            if self._queue is not None and time.monotonic() >= read_at_s + _BACKLOG_EVERY_S:
                read_at_s = time.monotonic()
                # The health says if the queue does not answer.
                with suppress(QueueUnavailable):
                    record_backlog(self._metrics, await self._queue.backlog())
                if self._catalog is not None:
                    await self._catalog.record()
            await asyncio.sleep(SAMPLED_EVERY_S)

    def _record_consumer(self) -> None:
        consumer = self._consumer
        if consumer is None:
            self._consumer_metrics.record_health(healthy=False)
        else:
            self._consumer_metrics.record(consumer.stats, consumer.stored, healthy=consumer.healthy)

    async def _until_it_succeeds(self, attempt: Callable[[], Awaitable[T]]) -> T:
        for number in itertools.count(1):
            try:
                return await attempt()
            except (TransientError, PermanentError) as error:
                # A denial ends as well, once somebody corrects the policy.
                pause_s = backoff_s(RETRY_BASE_S, number, RETRY_MAX_S)
                self._trouble = self._trouble._replace(reason=f"{error.code}: {error.message}")
                _logger.warning("%s; trying again in %.1f s", error.message, pause_s)
                await asyncio.sleep(pause_s)
            except FatalError as error:
                self._trouble = self._trouble._replace(reason=f"{error.code}: {error.message}")
                raise
        raise AssertionError("unreachable")

    async def _check_ledger(self) -> None:
        try:
            await asyncio.to_thread(check_ledger, self._store, self._ledger_config)
        except ForeedgeError as error:
            raise type(error)(f"ledger: {error.message}") from error

    async def _wait_for_models(self) -> None:
        await call_deployment(self._pipeline.models.remote(), self._queue_config.job_deadline_s)

    async def _process(self, job: AnyJob) -> Outcome:
        if isinstance(job, CatalogJob):
            raise no_catalog()
        response = self._pipeline.process.remote(job)
        outcome: Outcome = await call_deployment(response, self._queue_config.job_deadline_s)
        return outcome


def _open_catalog(
    config: AppConfig, stale_after_s: float, store: ObjectStore, metrics: Metrics
) -> Catalog | None:
    """Return the catalog, or None if none is configured.

    Args:
        config: Settings of the application.
        stale_after_s: Time, in seconds, after which no consumer works on a job any more.
        store: Object store of the images.
        metrics: Metrics of the process.

    Raises:
        InvalidConfig: The packages of the catalog are not installed.
    """
    if config.catalog is None:
        return None
    try:
        # SQLAlchemy and psycopg are in the extra ``catalog``, which few installations have.
        from ingest.catalog.catalog import Catalog
    except ImportError as error:
        raise missing_packages(error) from error
    return Catalog(config.catalog, config.aws, store, stale_after_s, metrics)


def accepted_in_flight(config: AppConfig, queue: QueueConfig) -> int:
    """Return the number of jobs that one consumer may have in the pipeline.

    It is ``queue.max_in_flight``, unless the pipeline's replicas accept fewer. The others would
    wait in Serve, where a request over HTTP would have to wait behind them.

    Args:
        config: Settings of the application.
        queue: Settings of the queue.
    """
    scaling = config.autoscaling
    replicas = config.pipeline.replicas if scaling is None else scaling.max_replicas
    accepted = replicas * config.pipeline.max_ongoing // queue.consumers
    return max(1, min(queue.max_in_flight, accepted))
