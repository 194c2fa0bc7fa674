"""Limits of the control plane, each of one process: handle calls and ingested messages a second.

``python -m loadtests.control_plane`` starts a Ray of its own and prints both. Handle calls carry
what they carry in service: a model-sized image there, a mask back. The ingest is the real one, in
front of a pipeline that answers at once; its queue is moto's, on the same machine, so that its
number is a lower bound.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from ingest import bulk, sources
from ingest.local_stack import OBJECT_STORE_BYTES, LocalAws, free_port, use_dummy_credentials
from ingest.planning import ControlPlane
from ingest.progress import Tally
from serve_app.app import ingest_deployment
from serve_app.config import AppConfig
from serve_app.contracts import Job, Outcome, Output
from serve_app.storage import aws_client, open_store

CALLS, CALLERS = 1500, 32
MESSAGES = 800

_BUCKET = "control-plane"
_SIDE_PX = 320
_TIMEOUT_S = 120.0


class Answers:
    """Answers at once, in the place of Segmenter or of CutoutPipeline."""

    async def segment(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return a mask of the right size."""
        return np.ascontiguousarray(image[..., 0])

    async def process(self, job: Job) -> Outcome:
        """Return that a job is done."""
        return Outcome(status="done", job_id=job.job_id, run_id=job.run_id, source=job.source)


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


def handle_calls_per_s() -> float:
    """Return the handle calls a second of one replica; needs a running Serve."""
    answers = serve.deployment(Answers).options(max_ongoing_requests=2 * CALLERS).bind()
    caller = serve.deployment(Caller).bind(answers)
    handle = serve.run(caller, name="calls", route_prefix=None)
    try:
        handle.calls_per_s.remote(CALLS // 5, CALLERS).result()
        rate: float = handle.calls_per_s.remote(CALLS, CALLERS).result()
        return rate
    finally:
        serve.delete("calls")


def messages_per_s(server: LocalAws) -> float:
    """Return the messages a second of one ingest actor; needs a running Serve."""
    server.create_bucket(_BUCKET)
    settings: dict[str, Any] = {
        "aws": {"endpoint_url": server.endpoint_url},
        "queue": {"url": server.create_queue(_BUCKET), "long_poll_s": 1, "max_in_flight": 128},
        "ledger": {"bucket": _BUCKET},
    }
    config = AppConfig.load(settings)
    if config.queue is None or config.ledger is None:
        raise AssertionError("both are set above")
    store = open_store(config)
    plan = bulk.plan(
        [sources.Entry(_BUCKET, f"{number}.jpg") for number in range(MESSAGES)],
        run_id=bulk.new_run_id(),
        description="control plane",
        output=Output(bucket=_BUCKET),
        recipe="cutout",
    )
    manifest = bulk.send(
        aws_client("sqs", config.aws), config.queue.url, store, config.ledger, plan
    )
    pipeline = serve.deployment(Answers).options(max_ongoing_requests=256).bind()
    serve.run(ingest_deployment(config, config.queue, pipeline), name="ingest", route_prefix=None)
    try:
        tally = Tally(store, config.ledger, manifest)
        # From the first result on: what came before is the start.
        first, began = 0, time.monotonic()
        deadline = began + _TIMEOUT_S
        while (finished := tally.update().finished) < MESSAGES:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{finished} of {MESSAGES} messages in {_TIMEOUT_S:.0f} s")
            if first == 0 and finished:
                first, began = finished, time.monotonic()
            time.sleep(0.2)
        return (MESSAGES - first) / (time.monotonic() - began)
    finally:
        serve.delete("ingest")


def measure() -> ControlPlane:
    """Return both limits, measured on a Ray of its own."""
    use_dummy_credentials()
    ray.init(
        address="local",
        num_cpus=8,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": free_port()})
        calls = handle_calls_per_s()
        with LocalAws() as server:
            messages = messages_per_s(server)
    finally:
        serve.shutdown()
        ray.shutdown()
    return ControlPlane(ingest_per_s=round(messages, 1), handle_calls_per_s=round(calls, 1))


if __name__ == "__main__":
    print(json.dumps(measure().model_dump(), indent=2))
