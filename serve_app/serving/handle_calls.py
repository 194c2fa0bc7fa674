"""Calls between deployments, and the mapping of Ray's exceptions to our errors."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.exceptions import (
    ActorPlacementGroupRemoved,
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    PendingCallsLimitExceeded,
    RayActorError,
    RaySystemError,
    RayTaskError,
    RpcError,
    TaskCancelledError,
    WorkerCrashedError,
)
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentResponse

from serve_app.errors import (
    DeadlineExceeded,
    ForeedgeError,
    InternalError,
    ModelUnavailable,
    Overloaded,
    ReplicaLost,
)

_LOST = (
    RayActorError,
    WorkerCrashedError,
    NodeDiedError,
    LocalRayletDiedError,
    ObjectLostError,
    OutOfMemoryError,
    ActorPlacementGroupRemoved,
    RaySystemError,
    RpcError,
    ReplicaUnavailableError,
    TaskCancelledError,
)
_FULL = (BackPressureError, PendingCallsLimitExceeded, ObjectStoreFullError, OutOfDiskError)
_UNAVAILABLE = (DeploymentUnavailableError, ActorUnschedulableError)


async def call_deployment(response: DeploymentResponse[Any], timeout_s: float) -> Any:
    """Wait for another deployment's answer.

    Args:
        response: Result of ``handle.method.remote(...)``.
        timeout_s: Time, in seconds, after which the call is cancelled. A handle has no timeout of
            its own, and waits indefinitely if no replica can be started.

    Returns:
        Return value of the method.

    Raises:
        ForeedgeError: The error that the method raised, or the one that stands for its exception
            or for the failure of the call.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            return await response
    except TimeoutError as error:
        if not limit.expired():
            raise map_ray_error(error) from error
        response.cancel()
        raise DeadlineExceeded(
            f"another deployment did not answer within {timeout_s:g} s"
        ) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            response.cancel()
            raise
        # Not this task was cancelled: a replica that ends cancels the requests it holds.
        raise ReplicaLost("the replica ended while it processed the request") from error
    except Exception as error:
        raise map_ray_error(error) from error


def map_ray_error(error: Exception) -> ForeedgeError:
    """Return our error for an exception of a call between deployments."""
    if isinstance(error, RayTaskError):
        # Ray wraps the method's exception in a class that inherits from both.
        cause: object = error.cause
        if isinstance(cause, Exception) and cause is not error:
            return map_ray_error(cause)
        return InternalError(str(error))
    if isinstance(error, ForeedgeError):
        return error
    if isinstance(error, _LOST):
        return ReplicaLost(_first_line(error))
    if isinstance(error, _FULL):
        return Overloaded(_first_line(error))
    if isinstance(error, _UNAVAILABLE):
        return ModelUnavailable(_first_line(error))
    return InternalError(f"{type(error).__name__}: {error}")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'no details'}"
