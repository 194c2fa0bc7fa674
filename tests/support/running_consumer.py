"""A consumer that runs while a test looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from ingest.consumer.consumer import Consumer
from ingest.runs.ledger import OutcomeSink
from ingest.sqs.queue import Queue
from serve_app.config import QueueConfig
from serve_app.contracts.outcome import Outcome


@asynccontextmanager
async def running_consumer(
    queue: Queue,
    process: Callable[[Any], Awaitable[Outcome]],
    ledger: OutcomeSink,
    config: QueueConfig,
) -> AsyncIterator[Consumer]:
    """Run a consumer as SqsIngest does, until the context ends."""
    consumer = Consumer(queue, process, ledger, config)
    running = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        await consumer.stop()
        await running
