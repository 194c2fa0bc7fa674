"""Questions that every replica of a deployment answers."""

from __future__ import annotations

from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from serve_app.errors import ForeedgeError
from serve_app.serving.handle_calls import call_deployment, map_ray_error

_TIMEOUT_S = 5.0


async def ask_every_replica(handle: DeploymentHandle, method: str) -> list[Any]:
    """Return the answer, or the exception, of each replica of a deployment.

    It never raises: that a deployment does not answer is one exception of one replica.

    Args:
        handle: Handle of the deployment.
        method: Name of a method without arguments.
    """
    try:
        try:
            return await _broadcast(handle, method)
        except DeploymentUnavailableError:
            # A handle that is new, or whose replicas were all replaced, does not know them yet.
            # ``broadcast`` refuses then, whereas ``remote`` waits until it knows one.
            await call_deployment(getattr(handle, method).remote(), _TIMEOUT_S)
            return await _broadcast(handle, method)
    except ForeedgeError as error:
        return [error]
    except (RayError, RayServeException, TimeoutError) as error:
        return [map_ray_error(error)]


async def _broadcast(handle: DeploymentHandle, method: str) -> list[Any]:
    # A handle reaches one replica with ``remote``, and all of them with ``broadcast``.
    answers: list[Any] = await handle.broadcast(method).results_async(
        timeout_s=_TIMEOUT_S, return_exceptions=True
    )
    return answers
