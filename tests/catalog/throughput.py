"""A benchmark: catalog jobs per second of one consumer, with Postgres next to it.

    python -m tests.catalog.throughput [JOBS]

The pipeline copies its image, and the queue and the objects are in this machine's memory and files,
so that what is measured is the consumer, its transactions and the database. Each book has 3 images.
The processor's time is that of this process and of the server, for machines that do other work too.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from serve_app.serving.metrics import CATALOG_TRANSACTION_SECONDS
from tests.catalog.collection import Collection, create_database, photographs
from tests.catalog.quick_bench import QuickBench
from tests.support.postgres_server import PostgresServer
from tests.support.recorded_metrics import RecordedMetrics

_JOBS = 2_000
_IN_FLIGHT = 64
_CORES = 2


def server_cpu_s(server: PostgresServer) -> float:
    """Return the processor time of a server and of all its connections, in seconds."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # Its parent is the server, or it is the server. Both are after the name in brackets.
        if server.pid in (int(folder.name), int(fields[1])):
            ticks += int(fields[11]) + int(fields[12])
            if int(folder.name) == server.pid:
                ticks += int(fields[13]) + int(fields[14])
    return ticks / os.sysconf("SC_CLK_TCK")


def own_cpu_s() -> float:
    """Return the processor time of this process, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True)
class Took:
    """What jobs took, in seconds."""

    wall_s: float
    own_s: float
    """Processor time of this process."""
    server_s: float
    """Processor time of the server and of its connections."""


async def measure(bench: QuickBench, server: PostgresServer, jobs: int) -> Took:
    """Process jobs, and return what it took. What the application does before does not count."""
    books = [bench.collection.add_book(*photographs(3)) for _ in range(jobs)]
    bench.upload(*(book for book, _ in books))
    bench.send(*(bench.collection.queue(book, images[0]) for book, images in books))
    wall_s, own_s, server_s = time.monotonic(), own_cpu_s(), server_cpu_s(server)
    async with bench.consuming():
        await bench.drained()
        return Took(time.monotonic() - wall_s, own_cpu_s() - own_s, server_cpu_s(server) - server_s)


def main() -> None:
    """Measure, and print a line of numbers."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else _JOBS
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        with closing(Collection(server.url(create_database(server)))) as collection:
            bench = QuickBench(Path(folder), collection, max_in_flight=_IN_FLIGHT)
            asyncio.run(measure(bench, server, 50))
            bench.metrics = metrics = RecordedMetrics()
            bench.pipeline.cpu_s.clear()
            # The real pipeline is another process, whose threads do not wait for this interpreter.
            bench.pipeline.in_threads = False
            took = asyncio.run(measure(bench, server, jobs))
        own_ms, server_ms = (each / jobs * 1_000 for each in (took.own_s, took.server_s))
        pipeline_ms = sum(bench.pipeline.cpu_s) / jobs * 1_000
        seconds = metrics.observed(CATALOG_TRANSACTION_SECONDS)[()]
    # Half of the transactions are finishes, so that at most 1 % of these are in the slowest 0.5 %.
    p99_ms = statistics.quantiles(seconds, n=200)[-1] * 1_000
    cores_do = min(1_000 / own_ms, _CORES * 1_000 / (own_ms + server_ms))
    print(
        f"{jobs} jobs in {took.wall_s:.1f} s: {jobs / took.wall_s:.0f} jobs/s; a job takes"
        f" {own_ms:.1f} ms of processor in the consumer, {pipeline_ms:.1f} of them in the stand-in"
        f" pipeline, and {server_ms:.1f} ms in Postgres, so that {_CORES} cores do {cores_do:.0f}"
        f" jobs/s; p99 of finish at most {p99_ms:.0f} ms"
    )


if __name__ == "__main__":
    main()
