"""What every route has at hand: the settings, the pipeline, and who is admitted.

A route gets it as a parameter, ``endpoint: CurrentEndpoint``, and works on an image like this::

    async with endpoint.deadline(asked_s), endpoint.upload(request) as upload:
        rendered = await endpoint.cut_out(upload.data, recipe)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo, requested_models
from serve_app.contracts.recipe import Recipe
from serve_app.contracts.rendered import Rendered
from serve_app.contracts.submission import JobQueue
from serve_app.errors import DeadlineExceeded, ForeedgeError
from serve_app.http.admission import ByteBudget, ConcurrencyLimit
from serve_app.http.api_keys import ApiKeys
from serve_app.http.uploads import Upload, read_upload
from serve_app.serving.handle_calls import call_deployment
from serve_app.serving.malloc import keep_freed_memory

_READY_TIMEOUT_S = 5.0

_logger = logging.getLogger(__name__)


class Endpoint:
    """The other deployments as the routes see them. Belongs to one event loop."""

    def __init__(
        self,
        config: AppConfig,
        pipeline: DeploymentHandle,
        ingest: DeploymentHandle | None,
        jobs: JobQueue,
    ) -> None:
        """Make the endpoint.

        Args:
            config: Its ``http`` and ``limits`` count.
            pipeline: The CutoutPipeline.
            ingest: The SqsIngest, where a queue is served too.
            jobs: The queue, for jobs that clients post.

        Raises:
            InvalidConfig: API keys are configured, and there are none.
        """
        keep_freed_memory()
        http = config.http
        self.config = config
        self.jobs = jobs
        self.keys = ApiKeys(http, config.aws) if http.authenticates else None
        if self.keys is None:
            _logger.warning(
                "no API keys are configured: the endpoint is open to everybody who reaches its "
                "port (http.api_keys, http.api_keys_file, http.api_keys_secret)"
            )
        self.uploads = ConcurrencyLimit(http.max_uploads, "http.max_uploads")
        self.buffer = ByteBudget(http.max_buffered_bytes, "http.max_buffered_bytes")
        self._places = ConcurrencyLimit(http.max_concurrent, "http.max_concurrent")
        self._pipeline = pipeline
        self._ingest = ingest
        self._models: list[ModelInfo] = []

    @asynccontextmanager
    async def deadline(self, asked_s: float | None) -> AsyncIterator[None]:
        """Bound the time of a request.

        Args:
            asked_s: What the client asks for; the configured time where it asks for nothing, or
                for more.

        Raises:
            DeadlineExceeded: The time is over; all that the request has begun is cancelled.
        """
        most_s = self.config.http.request_timeout_s
        limit_s = most_s if asked_s is None else min(asked_s, most_s)
        try:
            async with asyncio.timeout(limit_s) as scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise DeadlineExceeded(f"there was no result within {limit_s:g} s") from error

    @asynccontextmanager
    async def upload(self, request: Request) -> AsyncIterator[Upload]:
        """Read the image of a request, whose bytes count for as long as the context lasts.

        Raises:
            Overloaded: There is no room; where that is known beforehand, nothing is read.
            ForeedgeError: See ``read_upload``.
        """
        self._places.check()
        with self.buffer.open() as hold:
            with self.uploads.take():
                upload = await read_upload(request, self.config.limits.max_bytes, hold)
            yield upload

    async def cut_out(self, data: bytes, recipe: Recipe) -> Rendered:
        """Return the cut-out of an image file.

        Raises:
            Overloaded: ``http.max_concurrent`` images are being worked on.
            ForeedgeError: Why there is none.
        """
        with self._places.take():
            response = self._pipeline.cut_out.remote(data, recipe)
            rendered: Rendered | ForeedgeError = await call_deployment(
                response, self.config.http.request_timeout_s
            )
        if isinstance(rendered, ForeedgeError):
            raise rendered
        return rendered

    async def resolve(self, recipe: Recipe) -> tuple[Recipe, list[str]]:
        """Return a recipe with its models named, and the sha256 of each model's file.

        Raises:
            UnknownModel: A model is not served.
        """
        names = requested_models(recipe, self.config.models)
        if not self._models:
            # Asked for once: other files are another configuration, and so other replicas.
            self._models = await self.models()
        digests = {model.name: model.sha256 for model in self._models}
        return recipe.model_copy(update={"models": names}), [digests[name] for name in names]

    async def models(self) -> list[ModelInfo]:
        """Return the models that are served, in the order of preference."""
        models: list[ModelInfo] = await call_deployment(
            self._pipeline.models.remote(), _READY_TIMEOUT_S
        )
        return models

    async def ingest_status(self) -> dict[str, Any] | None:
        """Return what SqsIngest says of itself; None where no queue is served."""
        if self._ingest is None:
            return None
        status: dict[str, Any] = await call_deployment(
            self._ingest.status.remote(), _READY_TIMEOUT_S
        )
        return status


async def endpoint() -> Endpoint:
    """Return the endpoint of the replica in which a route runs."""
    # A coroutine, though it waits for nothing: FastAPI takes a function through a thread.
    found = serve.get_replica_context().servable_object
    assert isinstance(found, Endpoint)
    return found


CurrentEndpoint = Annotated[Endpoint, Depends(endpoint)]

AskedTimeout = Annotated[
    float | None,
    Header(
        alias="x-request-timeout-seconds",
        gt=0,
        allow_inf_nan=False,
        description="Time within which the client needs the answer, in seconds: past it 504. The "
        "configured time (60 s by default) is also the most.",
    ),
]
"""Parameter of a route: what goes into ``Endpoint.deadline``."""
