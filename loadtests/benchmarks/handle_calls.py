"""Calls per second from one replica to another: ``python -m loadtests.benchmarks.handle_calls``.

As in service, a call carries an image of the model's size and its answer a mask. The callee answers
at once, so that only Serve's handle, its router and Ray's transport are measured. ``foreedge plan``
uses the result as a limit of the control plane.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import numpy as np
import numpy.typing as npt

# Imported before Ray's environment is set, after which a handle needs an event loop here.
from ray import serve
from ray.serve.handle import DeploymentHandle

from ingest.local.application import local_serve
from ingest.local.ports import free_port

CALLS, CALLERS = 3000, 32

_SIDE_PX = 320
_LOGICAL_CPUS = 8


class InstantSegmenter:
    """A deployment that takes Segmenter's place and answers at once."""

    async def segment(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return a mask of the image's size."""
        return np.ascontiguousarray(image[..., 0])


class Caller:
    """A deployment that calls another one, as CutoutPipeline does."""

    def __init__(self, segmenter: DeploymentHandle) -> None:
        self._segmenter = segmenter

    async def calls_per_s(self, calls: int, callers: int) -> float:
        """Return the calls per second of some callers that each wait for their answers.

        Args:
            calls: Number of calls altogether.
            callers: Number of callers.
        """
        image = np.zeros((_SIDE_PX, _SIDE_PX, 3), np.uint8)
        left = iter(range(calls))

        async def caller() -> None:
            for _ in left:
                await self._segmenter.segment.remote(image)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return calls / (time.perf_counter() - began)


def measure() -> float:
    """Return the handle calls per second of one replica, on a Ray that is started for it."""
    with local_serve(_LOGICAL_CPUS, port=free_port()):
        deployment = serve.deployment(InstantSegmenter).options(max_ongoing_requests=2 * CALLERS)
        caller = serve.deployment(Caller).bind(deployment.bind())
        handle = serve.run(caller, name="calls", route_prefix=None)
        handle.calls_per_s.remote(CALLS // 10, CALLERS).result()
        rate: float = handle.calls_per_s.remote(CALLS, CALLERS).result()
    return rate


def main() -> None:
    """Measure, and print the result."""
    argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.handle_calls",
        description="Measure calls per second from one replica to another.",
    ).parse_args()
    print(f"{measure():.0f} handle calls/s")


if __name__ == "__main__":
    main()
