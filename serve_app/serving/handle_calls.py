"""Calls between deployments: one way to wait for them, and Ray's failures as errors of ours."""

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
    """Wait for the answer of another deployment.

    Args:
        response: What ``handle.method.remote(...)`` returned.
        timeout_s: Past it the call is cancelled: a handle has no time-out of its own, and waits
            for ever where no replica can be started.

    Returns:
        What the method returned.

    Raises:
        ForeedgeError: What the method raised where that is an error of our tree; else the
            error that stands for the failure.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            return await response
    except TimeoutError as error:
        if not limit.expired():
            raise map_ray_error(error) from error
        response.cancel()
        raise DeadlineExceeded(f"no answer within {timeout_s:g} s") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            response.cancel()
            raise
        # Serve cancels what a replica holds when that replica ends; we were not cancelled.
        raise ReplicaLost("the replica ended while it held the request") from error
    except Exception as error:
        raise map_ray_error(error) from error


def map_ray_error(error: Exception) -> ForeedgeError:
    """Return the error of our tree for what a call between deployments raised."""
    if isinstance(error, RayTaskError):
        # What the method raised; Ray wraps it in a class that inherits from both.
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
