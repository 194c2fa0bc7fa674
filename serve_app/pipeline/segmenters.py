"""Ways to a model: a Segmenter deployment, or a model in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo
from serve_app.errors import DeadlineExceeded, ReplicaLost
from serve_app.serving.handle_calls import call_deployment

Mask = npt.NDArray[np.uint8]


class RemoteSegmenters:
    """The Segmenter deployments, by the names of their models."""

    def __init__(self, handles: dict[str, DeploymentHandle], timeout_s: float) -> None:
        self._handles = handles
        self._timeout_s = timeout_s

    async def describe(self, name: str) -> ModelInfo:
        """See Segmenters."""
        handle = self._handles[name]
        info: ModelInfo = await self._call(lambda: handle.describe.remote())
        return info

    async def segment(self, name: str, image: Mask) -> Mask:
        """See Segmenters."""
        handle = self._handles[name]
        mask: Mask = await self._call(lambda: handle.segment.remote(image))
        return mask

    async def _call(self, request: Callable[[], DeploymentResponse]) -> Any:
        try:
            return await call_deployment(request(), self._timeout_s)
        except ReplicaLost:
            # The image is still here: another replica costs less than another receive.
            return await call_deployment(request(), self._timeout_s)


class LocalSegmenters:
    """The models in this process, in the threads that work on the pixels.

    With threads of their own more would run than there are cores, and take each other's cache.
    """

    def __init__(self, config: AppConfig, threads: ThreadPoolExecutor) -> None:
        # Only here, so that a replica that runs no model itself does not load ONNX Runtime.
        from serve_app.segmenter.deployment import Segmenter

        self._models = {name: Segmenter(name, config, threads) for name in config.models}
        self._timeout_s = config.segmenter.timeout_s

    async def describe(self, name: str) -> ModelInfo:
        """See Segmenters."""
        return await self._models[name].describe()

    async def segment(self, name: str, image: Mask) -> Mask:
        """See Segmenters."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._models[name].segment(image)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no mask within {self._timeout_s:g} s") from error
