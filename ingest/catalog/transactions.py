"""Transactions that an event loop awaits, in threads of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection

from ingest.catalog.database import CONNECTIONS, Database
from ingest.catalog.try_again import Repetitions, TryAgain

T = TypeVar("T")


class Transactions:
    """The transactions of one event loop."""

    def __init__(self, database: Database) -> None:
        """Start as many threads as there are connections.

        Args:
            database: Database of the application.
        """
        self._database = database
        self._threads = ThreadPoolExecutor(CONNECTIONS, "catalog")

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Return what a transaction returns, which is repeated as by ``Database.run``.

        It holds no thread while it waits for others. A caller that is cancelled gets its
        cancellation once the transaction has ended, so that what it does next comes second.

        Args:
            work: Body of the transaction. It may be called several times.

        Raises:
            DatabaseUnavailable: The database does not answer, or not now.
            InternalError: The database refuses a statement.
        """
        loop = asyncio.get_running_loop()
        repetitions = Repetitions(loop.time(), self._database.patience_s)
        while True:
            call = loop.run_in_executor(self._threads, self._database.run_once, work)
            try:
                return await asyncio.shield(call)
            except TryAgain as again:
                await asyncio.sleep(repetitions.pause_s(again, loop.time()))
            except asyncio.CancelledError:
                await asyncio.wait({call})
                # Retrieved, so that nobody complains about an error that nobody saw.
                call.cancelled() or call.exception()
                raise

    def close(self) -> None:
        """Let the threads end, and close the connections."""
        self._threads.shutdown(wait=False)
        self._database.close()
