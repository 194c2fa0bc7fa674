"""What every route has at hand: the settings, the pipeline, and a place for each image.

A route gets it as a parameter, ``endpoint: CurrentEndpoint``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends
from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app.config import AppConfig
from serve_app.contracts import Recipe
from serve_app.cutout import ModelInfo, Rendered
from serve_app.errors import ForeedgeError, Overloaded
from serve_app.replicas import call

_READY_TIMEOUT_S = 5.0


class Endpoint:
    """The other deployments as the routes see them. Belongs to one event loop."""

    def __init__(
        self, config: AppConfig, pipeline: DeploymentHandle, ingest: DeploymentHandle | None
    ) -> None:
        """Make the endpoint.

        Args:
            config: Its ``http`` and ``limits`` count.
            pipeline: The CutoutPipeline.
            ingest: The SqsIngest, where a queue is served too.
        """
        self.config = config
        self._pipeline = pipeline
        self._ingest = ingest
        self._accepted = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Take one of the places for images, or refuse at once.

        Raises:
            Overloaded: All are taken.
        """
        limit = self.config.http.max_concurrent
        if self._accepted >= limit:
            raise Overloaded(f"{limit} images are being worked on (http.max_concurrent)")
        self._accepted += 1
        try:
            yield
        finally:
            self._accepted -= 1

    async def cut_out(self, data: bytes, recipe: Recipe) -> Rendered:
        """Return the cut-out of an image file; to be called in a place.

        Raises:
            ForeedgeError: Why there is none.
        """
        response = self._pipeline.cut_out.remote(data, recipe)
        rendered: Rendered | ForeedgeError = await call(
            response, self.config.http.request_timeout_s
        )
        if isinstance(rendered, ForeedgeError):
            raise rendered
        return rendered

    async def models(self) -> list[ModelInfo]:
        """Return the models that are served, in the order of preference."""
        models: list[ModelInfo] = await call(self._pipeline.models.remote(), _READY_TIMEOUT_S)
        return models

    async def ingest_status(self) -> dict[str, Any] | None:
        """Return what SqsIngest says of itself; None where no queue is served."""
        if self._ingest is None:
            return None
        status: dict[str, Any] = await call(self._ingest.status.remote(), _READY_TIMEOUT_S)
        return status


def endpoint() -> Endpoint:
    """Return the endpoint of the replica in which a route runs."""
    found = serve.get_replica_context().servable_object
    assert isinstance(found, Endpoint)
    return found


CurrentEndpoint = Annotated[Endpoint, Depends(endpoint)]
