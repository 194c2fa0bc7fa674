"""Calls per second from one replica to another: ``python -m loadtests.benchmarks.handle_calls``.

They carry what they carry in service, a model-sized image there and a mask back, and the callee
answers at once: what is left is Serve's handle, its router and Ray's transport. A limit of the
control plane that ``foreedge plan`` plans with.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np
import numpy.typing as npt

# Here, before its environment is set: with that, a handle needs an event loop in this process.
from ray import serve
from ray.serve.handle import DeploymentHandle

from ingest.local.application import local_serve
from ingest.local.ports import free_port

CALLS, CALLERS = 3000, 32

_SIDE_PX = 320
_LOGICAL_CPUS = 8


class Answers:
    """Answers at once, in the place of Segmenter."""

    async def segment(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return a mask of the right size."""
        return np.ascontiguousarray(image[..., 0])


class Caller:
    """Makes calls from within a replica, as CutoutPipeline does."""

    def __init__(self, called: DeploymentHandle) -> None:
        self._called = called

    async def calls_per_s(self, calls: int, callers: int) -> float:
        """Return the rate of so many calls, by so many callers that each wait for an answer."""
        image = np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8)
        left = iter(range(calls))

        async def caller() -> None:
            for _ in left:
                await self._called.segment.remote(image)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return calls / (time.perf_counter() - began)


def measure() -> float:
    """Return the handle calls a second of one replica, on a Ray of its own."""
    with local_serve(_LOGICAL_CPUS, port=free_port()):
        answers = serve.deployment(Answers).options(max_ongoing_requests=2 * CALLERS).bind()
        caller = serve.deployment(Caller).bind(answers)
        handle = serve.run(caller, name="calls", route_prefix=None)
        handle.calls_per_s.remote(CALLS // 10, CALLERS).result()
        rate: float = handle.calls_per_s.remote(CALLS, CALLERS).result()
    return rate


if __name__ == "__main__":
    print(f"{measure():.0f} handle calls/s")
