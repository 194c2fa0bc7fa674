"""A benchmark: the processor's time of a catalog job's two transactions, in one thread.

python -m tests.catalog.transaction_bench [JOBS]
"""

from __future__ import annotations

import sys
import time
from contextlib import closing

from tests.catalog.collection import Collection, create_database, photographs
from tests.catalog.test_database import opened
from tests.catalog.test_rows import cutout, end, take
from tests.catalog.throughput import server_cpu_s
from tests.support.postgres_server import PostgresServer

_JOBS = 500
_WARM = 50


def main() -> None:
    """Measure, and print a line of numbers."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else _JOBS
    with PostgresServer() as server:
        url = server.url(create_database(server))
        with closing(Collection(url)) as collection, closing(opened(url)) as database:
            books = [collection.add_book(*photographs(3)) for _ in range(_WARM + jobs)]
            queued = [(collection.queue(book, images[0]), images[0]) for book, images in books]
            for job, source in queued[:_WARM]:
                take(database, job)
                end(database, job, cutout(job, source))
            began_s, server_s = time.thread_time(), server_cpu_s(server)
            for job, _ in queued[_WARM:]:
                take(database, job)
            claimed_s = time.thread_time()
            for job, source in queued[_WARM:]:
                end(database, job, cutout(job, source))
            finished_s, server_s = time.thread_time(), server_cpu_s(server) - server_s
    claim_ms, finish_ms, server_ms = (
        each / jobs * 1_000 for each in (claimed_s - began_s, finished_s - claimed_s, server_s)
    )
    print(
        f"{jobs} jobs: {claim_ms:.2f} ms of processor for a claim and {finish_ms:.2f} ms for a"
        f" finish, with {server_ms:.2f} ms of both in Postgres"
    )


if __name__ == "__main__":
    main()
