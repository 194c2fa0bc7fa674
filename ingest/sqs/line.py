"""A client of SQS with its own time-outs and threads, so that its calls delay no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from ingest.sqs.errors import map_sqs_errors
from serve_app.aws import aws_client
from serve_app.config import AwsConfig

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

T = TypeVar("T")


class Line:
    """A client together with the threads in which its blocking calls run."""

    def __init__(self, client: SQSClient, pool: ThreadPoolExecutor) -> None:
        self.client = client
        """Client of SQS. Its calls block."""
        self._pool = pool

    @classmethod
    async def open(cls, aws: AwsConfig, threads: int, name: str) -> Self:
        """Make a client in a thread, since that takes a tenth of a second.

        Args:
            aws: Settings of the client, with its time-outs.
            threads: Maximum number of calls at the same time.
            name: Prefix of the names of the threads.
        """
        pool = ThreadPoolExecutor(threads, name)
        try:
            client = await asyncio.get_running_loop().run_in_executor(
                pool, lambda: aws_client("sqs", aws, connections=threads)
            )
        except BaseException:
            pool.shutdown(wait=False)
            raise
        return cls(client, pool)

    async def call(self, where: str, call: Callable[[], T]) -> T:
        """Run a blocking call in a thread. Errors of botocore become QueueUnavailable.

        Args:
            where: Queue and action, for the text of the error.
            call: Function that calls the client.
        """
        with map_sqs_errors(where):
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def close(self) -> None:
        """Let the threads end after their present calls, and drop the calls that wait for one."""
        self._pool.shutdown(wait=False, cancel_futures=True)
