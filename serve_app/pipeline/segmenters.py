"""Access to the models: in Segmenter deployments, or in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ray.serve.handle import DeploymentHandle, DeploymentResponse

from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo
from serve_app.contracts.priority import Priority
from serve_app.errors import DeadlineExceeded, ReplicaLost
from serve_app.imaging.pixels import Pixels
from serve_app.scheduling.threads import PriorityThreads
from serve_app.serving.handle_calls import call_deployment
from serve_app.serving.metrics import Metrics


class RemoteSegmenters:
    """Models that run in Segmenter deployments. Implements ``Segmenters``."""

    def __init__(self, handles: dict[str, DeploymentHandle], timeout_s: float) -> None:
        self._handles = handles
        self._timeout_s = timeout_s

    async def describe(self, name: str) -> ModelInfo:
        """Return the facts about a model."""
        handle = self._handles[name]
        info: ModelInfo = await self._call_twice_if_lost(lambda: handle.describe.remote())
        return info

    async def segment(self, name: str, image: Pixels, priority: Priority) -> Pixels:
        """Return the mask, uint8 [S, S], of a model-sized image, uint8 [S, S, 3]."""
        handle = self._handles[name]
        mask: Pixels = await self._call_twice_if_lost(
            lambda: handle.segment.remote(image, priority)
        )
        return mask

    async def _call_twice_if_lost(self, request: Callable[[], DeploymentResponse]) -> Any:
        try:
            return await call_deployment(request(), self._timeout_s)
        except ReplicaLost:
            # The decoded image is still here. Calling another replica costs less than receiving
            # the message again.
            return await call_deployment(request(), self._timeout_s)


class LocalSegmenters:
    """Models that run in this process. Implements ``Segmenters``.

    They run in the threads that process pixels. In threads of their own, more threads than cores
    would run at the same time and displace each other's data from the processor's cache.
    """

    def __init__(
        self, config: AppConfig, threads: PriorityThreads, metrics: Metrics | None = None
    ) -> None:
        # Lazy, so that a replica that runs no model itself does not load ONNX Runtime.
        from serve_app.segmenter.deployment import Segmenter

        self._models = {
            name: Segmenter(name, config, threads, metrics) for name in config.served_models
        }
        self._timeout_s = config.segmenter.timeout_s

    async def describe(self, name: str) -> ModelInfo:
        """Return the facts about a model."""
        return await self._models[name].describe()

    async def segment(self, name: str, image: Pixels, priority: Priority) -> Pixels:
        """Return the mask, uint8 [S, S], of a model-sized image, uint8 [S, S, 3]."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._models[name].segment(image, priority)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"model {name} returned no mask within {self._timeout_s:g} s"
            ) from error
