"""What the loop runs: commands, a worker, the head's reader and /v1/jobs, each in its own process.

They are forked from a process that has imported everything, since a loop runs forty of them. Each
acts with the credentials in its environment alone.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ingest.cli.main import main
from ingest.consumer.deployment import SqsIngest
from ingest.runs.submissions import SqsJobs
from ingest.scaling.policy import BacklogReader
from ingest.sqs.backlog import Backlog, read_backlog
from ingest.sqs.queue_client import QueueClient
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.job import Job
from serve_app.contracts.model import ModelInfo
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.priority import Priority
from serve_app.errors import ForeedgeError
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.storage import open_store
from tests.deployment.iam.account import API_KEY
from tests.support.http_client import LocalHandle, StuckPipeline, endpoint_client

SLOW = "slow.jpg"
"""End of the keys of images that take so long that the leases of their messages are extended."""
VISIBILITY_S = 4
_SLOW_S = 2.0
_SIDE_PX = 320
_PATIENCE_S = 60.0
_CODE = re.compile(r"\b[a-z]+_[a-z_]+: ")
_KEYED = {"X-API-Key": API_KEY}
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, "tests.deployment.iam.nodes"])


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """Exit status. 0 stands for success."""
    text: str
    """What it printed, and for a worker why it is not healthy."""


def run(target: Callable[..., None], environment: Mapping[str, str], *arguments: Any) -> Ended:
    """Run a function of this module in a process of its own, until it ends.

    Args:
        target: The function. It gets the end of a connection to which it sends its text.
        environment: Environment of the process.
        arguments: Further arguments.
    """
    receiver, sender = _context.Pipe(duplex=False)
    process = _context.Process(target=_begin, args=(target, dict(environment), sender, arguments))
    process.start()
    sender.close()
    text = ""
    try:
        if receiver.poll(_PATIENCE_S):
            text = receiver.recv()
    except EOFError:
        text = "it ended without an answer"
    process.join(_PATIENCE_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        text += "; it did not end"
    receiver.close()
    return Ended(process.exitcode or 0, text)


def _begin(
    target: Callable[..., None],
    environment: Mapping[str, str],
    sender: Connection,
    arguments: Sequence[Any],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    # Logs of what is expected to fail. Whatever counts is sent.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    try:
        target(sender, *arguments)
    except ForeedgeError as error:
        sender.send(f"{error.code}: {error.message}")
        sys.exit(1)
    except Exception:
        sender.send(traceback.format_exc())
        raise


def command(sender: Connection, arguments: Sequence[str], folder: Path) -> None:
    """Run ``foreedge`` and send what it prints."""
    file = folder / "output"
    with file.open("wb") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    sys.argv = ["foreedge", *arguments]
    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sender.send(file.read_text())


def head(sender: Connection) -> None:
    """Read the backlog as Serve's controller does, and send it, or why it cannot be read."""
    config = AppConfig.load({})
    assert config.queue is not None
    texts: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("ray.serve").addHandler(handler)
    reader = BacklogReader(config.queue.url, config.aws, 0.2)
    while reader.latest is None and not texts:
        time.sleep(0.05)
    if reader.latest is None:
        sender.send(texts[0])
        sys.exit(1)
    sender.send(f"{reader.latest.waiting} waiting")


def jobs(sender: Connection, contents: Sequence[Any]) -> None:
    """Post jobs to /v1/jobs, and send the answer as JSON."""

    async def post() -> str:
        config = AppConfig.load({})
        async with endpoint_client(config, StuckPipeline(), SqsJobs(config)) as client:
            answer = await client.post("/v1/jobs", json=list(contents), headers=_KEYED)
            return answer.text

    sender.send(asyncio.run(post()))


def counts(sender: Connection, run_id: str) -> None:
    """Ask /v1/jobs for the counts of a run, and send the answer as JSON."""

    async def get() -> str:
        config = AppConfig.load({})
        async with endpoint_client(config, StuckPipeline(), SqsJobs(config)) as client:
            return (await client.get(f"/v1/jobs/{run_id}", headers=_KEYED)).text

    sender.send(asyncio.run(get()))


class _Masks:
    """Models that keep the middle of every image."""

    async def describe(self, name: str) -> ModelInfo:
        return ModelInfo(name=name, size_px=_SIDE_PX, sha256="0" * 64)

    async def segment(
        self, name: str, image: npt.NDArray[np.uint8], priority: Priority
    ) -> npt.NDArray[np.uint8]:
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[_SIDE_PX // 4 : -_SIDE_PX // 4, _SIDE_PX // 4 : -_SIDE_PX // 4] = 255
        return mask


class _Application:
    """The pipeline of the application without Ray and without a model."""

    def __init__(self, config: AppConfig) -> None:
        threads = imaging_threads(config.pipeline)
        self._pipeline = ImagePipeline(config, open_store(config), _Masks(), threads)

    async def process(self, job: Job) -> Outcome:
        if job.source.key.endswith(SLOW):
            await asyncio.sleep(_SLOW_S)
        return await self._pipeline.process(job)

    async def models(self) -> list[ModelInfo]:
        return await self._pipeline.models()


def worker(sender: Connection, messages: int) -> None:
    """Run the consumer of the application, until messages are settled or it has a reason to stop.

    Args:
        sender: Connection for the reason, which is empty if all are settled.
        messages: Number of messages to delete.
    """
    reason = asyncio.run(_consume(messages))
    sender.send(reason)
    sender.close()
    # A normal exit would wait for the threads of requests that are still tried.
    os._exit(bool(reason))


async def _consume(messages: int) -> str:
    config = AppConfig.load({})
    assert config.queue is not None
    queue = QueueClient(aws_client("sqs", config.aws), config.queue.url)
    handle: Any = LocalHandle(_Application(config))
    # Serve creates a replica in the same way, since the initialization is asynchronous.
    ingest = SqsIngest.__new__(SqsIngest)
    await ingest.__init__(config, handle)  # type: ignore[misc]
    give_up_at = time.monotonic() + _PATIENCE_S - 5
    while time.monotonic() < give_up_at:
        status = await ingest.status()
        settled = status.get("deleted", 0) >= messages and not status["unsettled"]
        # A message that was delivered twice is deleted twice.
        if settled and await asyncio.to_thread(read_backlog, queue) == Backlog(0, 0):
            await ingest.__del__()
            return ""
        # Before it serves, the reason may be that it has just begun, without a code.
        if status["reason"] and _CODE.search(status["reason"]):
            return str(status["reason"])
        await asyncio.sleep(0.05)
    return f"it has not settled {messages} messages: {status}"
