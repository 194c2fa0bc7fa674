"""The endpoint with all that is behind it, in this process and without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo
from serve_app.contracts.submission import Receipt, RunCounts
from serve_app.errors import QueueUnavailable, SourceNotFound
from serve_app.http.deployment import make_api
from serve_app.http.endpoint import Endpoint, current_endpoint
from serve_app.pipeline.deployment import CutoutPipeline


class Handle:
    """A deployment handle to an object of this process: a task is what a response is."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Method:
        return Method(getattr(self._target, name))


class Method:
    def __init__(self, method: Any) -> None:
        self._method = method

    def remote(self, *args: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self._method(*args))


class StuckPipeline:
    """Works on every image until it is released; knows what was cancelled."""

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
    """What the endpoint has of a queue where none is configured."""

    async def submit(self, contents: list[Any]) -> list[Receipt]:
        raise QueueUnavailable("no queue is configured here")

    async def counts(self, run_id: str) -> RunCounts:
        raise SourceNotFound(f"no run {run_id!r}")


def pipeline_of(config: AppConfig) -> CutoutPipeline:
    """Return the real pipeline with the real model, both in this process."""
    segmenter = config.segmenter.model_copy(update={"placement": "pipeline"})
    return CutoutPipeline(config.model_copy(update={"segmenter": segmenter}), {})


@asynccontextmanager
async def client_of(
    config: AppConfig, pipeline: Any, jobs: Any = None, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an endpoint; its ``endpoint`` is that object."""
    handle: Any = Handle(pipeline)
    made = Endpoint(config, handle, None, jobs or NoQueue())
    api = make_api()
    api.dependency_overrides[current_endpoint] = lambda: made
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", **options) as client:
        client.endpoint = made  # type: ignore[attr-defined]
        yield client
