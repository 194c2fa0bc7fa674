"""A client of the HTTP endpoint in this process, without Ray and without a network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo
from serve_app.contracts.submission import JobQueue, Receipt, RunCounts
from serve_app.errors import QueueUnavailable, SourceNotFound
from serve_app.http.deployment import make_api
from serve_app.http.endpoint import Endpoint, current_endpoint
from serve_app.pipeline.deployment import CutoutPipeline


class LocalHandle:
    """A deployment handle to an object of this process. A response is a task."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> RemoteMethod:
        return RemoteMethod(getattr(self._target, name))


class RemoteMethod:
    """A method of a deployment handle."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def remote(self, *args: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self._method(*args))


class StuckPipeline:
    """A pipeline that processes no image until it is released, and counts cancelled ones."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.release = asyncio.Event()

    async def cut_out(self, *_: object) -> object:
        self.begun += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return QueueUnavailable("released")

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(name="folio", size_px=320, sha256="0" * 64)]


class NoQueue:
    """The job queue of an application without a configured queue."""

    async def submit(self, contents: list[Any]) -> list[Receipt]:
        raise QueueUnavailable("No queue is configured.")

    async def counts(self, run_id: str) -> RunCounts:
        raise SourceNotFound(f"There is no run {run_id!r}.")


class EndpointClient(httpx.AsyncClient):
    """A client with access to the endpoint that it calls."""

    def __init__(self, endpoint: Endpoint, **options: Any) -> None:
        api = make_api()
        api.dependency_overrides[current_endpoint] = lambda: endpoint
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        super().__init__(transport=transport, base_url="http://test", **options)
        self.endpoint = endpoint


def local_pipeline(config: AppConfig) -> CutoutPipeline:
    """Return the real pipeline with the real model, both in this process."""
    segmenter = config.segmenter.model_copy(update={"placement": "pipeline"})
    return CutoutPipeline(config.model_copy(update={"segmenter": segmenter}), {})


@asynccontextmanager
async def endpoint_client(
    config: AppConfig, pipeline: Any, jobs: JobQueue | None = None, **options: Any
) -> AsyncIterator[EndpointClient]:
    """Yield a client of an endpoint.

    Args:
        config: Settings of the application.
        pipeline: Pipeline behind the endpoint.
        jobs: Queue behind the endpoint. No queue is configured if it is None.
        **options: Options of ``httpx.AsyncClient``.
    """
    handle: Any = LocalHandle(pipeline)
    endpoint = Endpoint(config, handle, None, jobs or NoQueue())
    async with EndpointClient(endpoint, **options) as client:
        yield client


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, for at most 30 s."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing signals the change
            await asyncio.sleep(0.005)
