"""A consumer of catalog jobs, as SqsIngest makes it.

``python -m tests.catalog.consuming SETTINGS`` runs one with a stand-in pipeline until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ingest.catalog.catalog import Catalog
from ingest.consumer.consumer import Consumer
from ingest.runs.ledger import Ledger
from ingest.sqs.queue import Queue, SqsQueue
from serve_app.config import AppConfig
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.serving.metrics import UNRECORDED, Metrics
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore
from tests.catalog.stand_in_pipeline import Process, StandInPipeline
from tests.support.running_consumer import running_consumer

_WORK_S = 0.05


@asynccontextmanager
async def consuming_catalog(
    config: AppConfig,
    queue: Queue,
    store: ObjectStore,
    process: Process,
    metrics: Metrics = UNRECORDED,
) -> AsyncIterator[Consumer]:
    """Run a consumer until the context ends."""
    assert config.queue is not None
    assert config.ledger is not None
    assert config.catalog is not None
    catalog = Catalog(config.catalog, config.aws, store, 600, metrics)
    await catalog.check()
    ledger = catalog.recorder(Ledger(store, config.ledger, retry_base_s=0.1))
    jobs = catalog.process(process)
    try:
        async with running_consumer(queue, jobs.run, ledger, config.queue) as consumer:
            yield consumer
    finally:
        catalog.close()


async def main(settings: str) -> None:
    """Run a consumer until SIGTERM."""
    config = AppConfig.load(json.loads(settings))
    assert config.queue is not None
    stop_requested = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop_requested.set)
    store = open_store(config)
    pipeline = StandInPipeline(store)

    async def process(job: Job) -> Outcome:
        await asyncio.sleep(_WORK_S)
        return await pipeline.process(job)

    queue = await SqsQueue.open(config.queue, config.aws)
    async with consuming_catalog(config, queue, store, process):
        await stop_requested.wait()
    await queue.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
