"""The endpoint as its routes see it: settings, admission, and calls to the other deployments.

A route takes it as a parameter, ``endpoint: CurrentEndpoint``, and processes an image like this::

    async with endpoint.deadline(requested_s), endpoint.receive_image(request) as upload:
        rendered = await endpoint.cut_out(upload.data, recipe)
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo, requested_models
from serve_app.contracts.recipe import Recipe
from serve_app.contracts.rendered import Rendered
from serve_app.contracts.retry import QueueFailedJobs
from serve_app.contracts.submission import JobQueue
from serve_app.errors import DeadlineExceeded, ForeedgeError
from serve_app.http.admission import ByteBudget, ConcurrencyLimit
from serve_app.http.api_keys import ApiKeys
from serve_app.http.ingest_health import summarize_replicas
from serve_app.http.operations import summarize_operations
from serve_app.http.operations_answer import Operations
from serve_app.http.replicas import ask_every_replica
from serve_app.http.request_metrics import RequestMetrics
from serve_app.http.served_application import ServedApplication
from serve_app.http.uploads import CUTOUT_FORM, FormRules, UploadedImage, read_uploaded_image
from serve_app.serving.handle_calls import call_deployment
from serve_app.serving.kept_reports import keep_replica_reports, own_report
from serve_app.serving.malloc import IdleMemory, keep_freed_memory
from serve_app.serving.metrics import Metrics
from serve_app.serving.ray_metrics import (
    process_metrics,
    record_build,
    sample_periodically,
)
from serve_app.serving.recent_metrics import RecentReport

_STATUS_TIMEOUT_S = 5.0
_OPERATIONS_FOR_S = 2.0
"""Time, in seconds, for which everybody gets the same answer about the operations."""

_logger = logging.getLogger(__name__)


class Endpoint:
    """What the routes share: limits, API keys and the other deployments.

    Belongs to one event loop.
    """

    def __init__(
        self,
        config: AppConfig,
        pipeline: DeploymentHandle,
        ingest: DeploymentHandle | None,
        jobs: JobQueue,
        metrics: Metrics | None = None,
        queue_failed: QueueFailedJobs | None = None,
        application: ServedApplication | None = None,
    ) -> None:
        """Create the endpoint.

        Args:
            config: Settings of the application. Only ``http``, ``limits``, ``models`` and ``aws``
                are used.
            pipeline: Handle of CutoutPipeline.
            ingest: Handle of SqsIngest, or None if the application serves no queue.
            jobs: Queue for the jobs that clients submit.
            metrics: What to record metrics to. None stands for those of this process.
            queue_failed: Jobs of a book collection that SQS did not take. None without a catalog.
            application: What the operations page asks. None stands for the application of this
                replica, which is looked up when somebody asks.

        Raises:
            InvalidConfig: API keys are configured, but their source has none.
        """
        keep_freed_memory()
        self._memory = IdleMemory()
        http = config.http
        self.config = config
        self.jobs = jobs
        self.queue_failed = queue_failed
        self.keys = ApiKeys(http, config.aws) if http.authenticates else None
        if self.keys is None:
            _logger.warning(
                "No API keys are configured: the endpoint is open to everybody who can reach its "
                "port. Set http.api_keys, http.api_keys_file or http.api_keys_secret to protect it."
            )
        self.uploads = ConcurrencyLimit(http.max_uploads, "http.max_uploads")
        self.buffer = ByteBudget(http.max_buffered_bytes, "http.max_buffered_bytes")
        self._images = ConcurrencyLimit(http.max_concurrent, "http.max_concurrent")
        self._pipeline = pipeline
        self._ingest = ingest
        self._models: list[ModelInfo] = []
        self._application = application
        self._operations: Operations | None = None
        self._operations_until_s = -math.inf
        self._operations_lock = asyncio.Lock()
        used = process_metrics() if metrics is None else metrics
        self.requests = RequestMetrics(used)
        sample_periodically(lambda: record_build(used))
        keep_replica_reports(self._report)

    @asynccontextmanager
    async def deadline(self, requested_s: float | None) -> AsyncIterator[None]:
        """Limit the time of a request.

        Args:
            requested_s: Time limit that the client requests, in seconds. The configured limit
                applies if it is None or longer than that.

        Raises:
            DeadlineExceeded: The time is over. Everything that the request started is cancelled.
        """
        configured_s = self.config.http.request_timeout_s
        limit_s = configured_s if requested_s is None else min(requested_s, configured_s)
        try:
            with self._memory.in_use():
                async with asyncio.timeout(limit_s) as scope:
                    yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlineExceeded(f"There was no result within {limit_s:g} s.") from error

    @asynccontextmanager
    async def receive_image(
        self, request: Request, rules: FormRules = CUTOUT_FORM
    ) -> AsyncIterator[UploadedImage]:
        """Read the image of a request. Its bytes count as buffered until the context ends.

        Args:
            request: Request whose body has not been read yet.
            rules: What a form may contain.

        Raises:
            Overloaded: A limit is reached. If that is known beforehand, nothing is read.
            ForeedgeError: The image cannot be read, see ``read_uploaded_image``.
        """
        self._images.check()
        with self.buffer.reservation() as reserve:
            with self.uploads.take():
                max_bytes = self.config.limits.max_bytes
                image = await read_uploaded_image(request, max_bytes, reserve, rules)
            yield image

    async def cut_out(self, data: bytes, recipe: Recipe) -> Rendered:
        """Return the cut-out of an image file.

        Raises:
            Overloaded: The endpoint is processing ``http.max_concurrent`` images already.
            ForeedgeError: The pipeline reported an error.
        """
        with self._images.take(), self.requests.image() as note_model:
            response = self._pipeline.cut_out.remote(data, recipe)
            rendered: Rendered | ForeedgeError = await call_deployment(
                response, self.config.http.request_timeout_s
            )
            if isinstance(rendered, ForeedgeError):
                raise rendered
            note_model(rendered.cutout.model)
        return rendered

    async def resolve(self, recipe: Recipe) -> tuple[Recipe, list[str]]:
        """Return a recipe that names its models, and what results of each model depend on.

        Raises:
            UnknownModel: The application does not serve one of the models.
        """
        names = requested_models(recipe, self.config.models, self.config.served_models)
        if not self._models:
            # Asked once: other model files need another configuration, and so new replicas.
            self._models = await self.models()
        digests = {model.name: model.result_digest for model in self._models}
        return recipe.model_copy(update={"models": names}), [digests[name] for name in names]

    async def models(self) -> list[ModelInfo]:
        """Return the models that are served, in order of preference."""
        models: list[ModelInfo] = await call_deployment(
            self._pipeline.models.remote(), _STATUS_TIMEOUT_S
        )
        return models

    async def ingest_status(self) -> dict[str, Any] | None:
        """Return the status of all SqsIngest replicas, or None if there is no queue to serve.

        It never raises: that the ingest does not answer is its status.
        """
        if self._ingest is None:
            return None
        return summarize_replicas(await ask_every_replica(self._ingest, "status"))

    async def recent(self) -> RecentReport:
        """Return what this replica has done lately, for the operations page."""
        return self._report()

    def _report(self) -> RecentReport:
        return own_report(self.requests.failures)

    async def operations(self) -> Operations:
        """Return what all replicas did during the last half hour, and how they are now.

        Those who ask at the same time share an answer.
        """
        async with self._operations_lock:
            if time.monotonic() > self._operations_until_s:
                self._operations = await self._gather_operations()
                self._operations_until_s = time.monotonic() + _OPERATIONS_FOR_S
            assert self._operations is not None
            return self._operations

    async def _gather_operations(self) -> Operations:
        if self._application is None:
            self._application = ServedApplication.of_this_replica()
        application = self._application
        handles = [application.own, self._pipeline, *([self._ingest] if self._ingest else [])]
        answers, ingest, replicas = await asyncio.gather(
            asyncio.gather(*(ask_every_replica(handle, "recent") for handle in handles)),
            self.ingest_status(),
            application.replicas(),
        )
        reports = [each for some in answers for each in some if isinstance(each, RecentReport)]
        reports += await application.kept_reports(report.replica for report in reports)
        return summarize_operations(reports, replicas, ingest, time.time())


async def current_endpoint() -> Endpoint:
    """Return the endpoint of the replica in which a route runs."""
    # A coroutine although it never waits: FastAPI runs plain functions in a thread.
    found = serve.get_replica_context().servable_object
    assert isinstance(found, Endpoint)
    return found


async def configured_cors_origins(app: FastAPI) -> tuple[str, ...]:
    """Return the origins whose web pages may call the application.

    A middleware cannot take the endpoint as a parameter, so it is found as FastAPI finds it.
    """
    return (await _endpoint_of(app)).config.http.cors_origins


async def configured_metrics(app: FastAPI) -> RequestMetrics:
    """Return what the application records its requests to, for a middleware."""
    return (await _endpoint_of(app)).requests


async def _endpoint_of(app: FastAPI) -> Endpoint:
    provide = app.dependency_overrides.get(current_endpoint, current_endpoint)
    found = provide()
    endpoint: Endpoint = await found if inspect.isawaitable(found) else found
    return endpoint


CurrentEndpoint = Annotated[Endpoint, Depends(current_endpoint)]
"""Parameter of a route: the endpoint of this replica."""

RequestedTimeout = Annotated[
    float | None,
    Header(
        alias="x-request-timeout-seconds",
        gt=0,
        allow_inf_nan=False,
        description="Time in seconds within which the client needs the response. After it the "
        "request fails with 504. It cannot exceed the limit of the server, which is 60 s by "
        "default.",
    ),
]
"""Parameter of a route: the argument of ``Endpoint.deadline``."""
