"""How fast one consumer takes, dispatches and acknowledges messages, and what it costs.

    python -m loadtests.benchmarks.consumer [--messages 200000] [--quick]

The pipeline is a stand-in that answers at once, so that nothing but the ingest is measured. Three
queues: one in memory that answers at once, one in memory that takes as long for a call as SQS
does within a region, and moto's SQS server on this machine; and SqsIngest on Ray, before moto.
Each case runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import platform
import resource
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from ingest.consumer.consumer import Consumer
from ingest.local.application import local_serve
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.ports import free_port
from ingest.runs.ledger import Ledger
from ingest.sqs.limits import BATCH_ENTRIES
from ingest.sqs.queue import SqsQueue
from loadtests.harness.metering import run_workers_beside_others
from loadtests.harness.standins import Feed, Nowhere, Standin, body
from serve_app.aws import aws_client
from serve_app.config import AppConfig, AwsConfig, LedgerConfig, QueueConfig
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore

OUT = Path("out/bench/ingest.json")
SQS_CALL_S = 0.01
"""What a call of SQS takes within a region, about."""
_LOGICAL_CPUS = 4
_SAMPLES = 20
_MOST_WAITING = 50
_LIMIT_S = 900


@dataclass(frozen=True)
class Result:
    """What one case gave."""

    case: str
    messages: int
    seconds: float
    per_second: float
    cpu_share: float
    """Of one core, over the run."""
    cpu_us_per_message: float
    peak_mib: float
    growth_mib: float | None
    """Of the memory's mean, from the third quarter of the run to the last; None where it was not
    sampled."""


def in_memory(case: str, messages: int, call_s: float) -> Result:
    """Measure a consumer on a queue in memory."""

    async def measured() -> Result:
        queue = Feed(messages, call_s)
        config = QueueConfig(url="memory")
        ledger = LedgerConfig(bucket="bench")
        return await consume(case, queue, Nowhere(), config, ledger, messages, _SAMPLES)

    return asyncio.run(measured())


def on_moto(case: str, messages: int) -> Result:
    """Measure a consumer on moto's SQS and S3."""
    use_dummy_credentials()

    async def measured(config: AppConfig) -> Result:
        assert config.queue is not None
        assert config.ledger is not None
        queue = await SqsQueue.open(config.queue, config.aws)
        store = open_store(config)
        try:
            return await consume(case, queue, store, config.queue, config.ledger, messages, 0)
        finally:
            queue.close()

    with LocalAws() as server, sending(server, messages) as config:
        return asyncio.run(measured(config))


def on_ray(case: str, messages: int) -> Result:
    """Measure SqsIngest on Ray, on moto's SQS and S3; the stand-in is a deployment, too."""
    use_dummy_credentials()
    # Before its environment is set: with that, a handle needs an event loop in this process.
    from ray import serve

    from ingest.consumer.deployment import SqsIngest

    run_workers_beside_others()
    with (
        LocalAws() as server,
        sending(server, messages) as config,
        local_serve(_LOGICAL_CPUS, port=free_port()),
    ):
        standin = serve.deployment(Standin).options(max_ongoing_requests=256).bind()
        ingest = serve.deployment(SqsIngest).options(ray_actor_options={"num_cpus": 0.1})
        handle = serve.run(ingest.bind(config, standin), name="bench", route_prefix=None)
        process = None
        while process is None:
            stats = handle.status.remote().result()
            process = _replica_process() if stats.get("deleted") else None
        first, began_at, cpu_s = stats["deleted"], time.perf_counter(), _cpu_s(process)
        peak = 0.0
        while stats["deleted"] < messages:
            time.sleep(0.2)
            stats = handle.status.remote().result()
            peak = max(peak, process.memory_info().rss / 2**20)
        seconds = time.perf_counter() - began_at
        used_s = _cpu_s(process) - cpu_s
    count = messages - first
    return result(case, count, seconds, used_s, peak, None)


def _replica_process() -> psutil.Process:
    # Workers are children of the raylet, which is one of ours.
    for process in psutil.Process().children(recursive=True):
        # One that has just ended has no command line.
        with suppress(psutil.NoSuchProcess):
            if any("SqsIngest" in part for part in process.cmdline()):
                return process
    raise AssertionError("no process of SqsIngest")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def sending(server: LocalAws, messages: int) -> Iterator[AppConfig]:
    """Give settings of a queue that is kept filled by a process of its own.

    Filled a little at a time: moto counts all messages of a queue for each one that it hands out.
    """
    name = f"bench-{uuid.uuid4().hex[:8]}"
    server.create_bucket(name)
    url = server.create_queue(name)
    context = multiprocessing.get_context("spawn")
    sender = context.Process(target=send, args=(server.endpoint_url, url, messages), daemon=True)
    sender.start()
    yield AppConfig.load(
        {
            "aws": {"endpoint_url": server.endpoint_url},
            "queue": {"url": url, "long_poll_s": 1},
            "ledger": {"bucket": name},
        }
    )
    sender.join()


def send(endpoint_url: str, url: str, messages: int) -> None:
    """Put messages on a queue, as many at a time as wait to be taken."""
    client = aws_client("sqs", AwsConfig(endpoint_url=endpoint_url))
    wanted: Any = ["ApproximateNumberOfMessages"]
    sent = 0
    while sent < messages:
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
        if int(found[wanted[0]]) > _MOST_WAITING:
            time.sleep(0.05)
            continue
        for start in range(sent, min(sent + _MOST_WAITING, messages), BATCH_ENTRIES):
            numbers = range(start, min(start + BATCH_ENTRIES, messages))
            entries = [{"Id": f"{number}", "MessageBody": body(number)} for number in numbers]
            answer = client.send_message_batch(QueueUrl=url, Entries=entries)
            assert not answer.get("Failed"), answer
            sent = numbers.stop


async def consume(
    case: str,
    queue: Any,
    store: ObjectStore,
    config: QueueConfig,
    ledger: LedgerConfig,
    messages: int,
    samples: int,
) -> Result:
    """Run a consumer until it has deleted so many messages."""
    consumer = Consumer(queue, Standin().process, Ledger(store, ledger), config)
    memory: list[float] = []
    process = psutil.Process()
    began_at, cpu_s = time.perf_counter(), time.process_time()
    running = asyncio.create_task(consumer.run())
    async with asyncio.timeout(_LIMIT_S):
        while (deleted := consumer.stats.deleted) < messages:
            await asyncio.sleep(0.02)
            if samples and deleted * samples >= messages * (len(memory) + 1):
                memory.append(process.memory_info().rss / 2**20)
    seconds, used_s = time.perf_counter() - began_at, time.process_time() - cpu_s
    await consumer.stop()
    await running
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # The first half warms up: threads of the ledger come, each with memory of its own.
    quarter = len(memory) // 4
    growth = fmean(memory[-quarter:]) - fmean(memory[-2 * quarter : -quarter]) if quarter else None
    return result(case, messages, seconds, used_s, peak, growth)


def result(
    case: str, messages: int, seconds: float, cpu_s: float, peak: float, growth: float | None
) -> Result:
    """Return a case's result from what was measured."""
    return Result(
        case=case,
        messages=messages,
        seconds=round(seconds, 2),
        per_second=round(messages / seconds, 1),
        cpu_share=round(cpu_s / seconds, 3),
        cpu_us_per_message=round(cpu_s / messages * 1e6, 1),
        peak_mib=round(peak, 1),
        growth_mib=None if growth is None else round(growth, 1),
    )


def main() -> None:
    """Measure every case, and show and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the messages")
    options = parser.parse_args()
    count = options.messages // 100 if options.quick else options.messages
    few = max(200, count // 100)
    cases: list[tuple[Callable[..., Result], tuple[Any, ...]]] = [
        (in_memory, ("memory, answers at once", count, 0.0)),
        (in_memory, (f"memory, {SQS_CALL_S * 1000:.0f} ms a call", count // 4, SQS_CALL_S)),
        (on_moto, ("moto's SQS and S3", few)),
        (on_ray, ("SqsIngest on Ray, moto", few)),
    ]
    context = multiprocessing.get_context("spawn")
    results = []
    for function, arguments in cases:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            results.append(pool.submit(function, *arguments).result())
    show(results)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": psutil.cpu_count(), "machine": platform.machine()}
    machine["load_before"] = round(psutil.getloadavg()[0], 1)
    content = {"machine": machine, "results": [asdict(item) for item in results]}
    OUT.write_text(json.dumps(content, indent=2) + "\n")


def show(results: Sequence[Result]) -> None:
    """Print the results as a table."""
    title = "One consumer; the pipeline is a stand-in that answers at once"
    table = Table(title=title, box=None, padding=(0, 2, 0, 0))
    table.add_column("queue")
    for name in ("messages", "per s", "cores", "µs each", "peak MiB", "growth"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in results:
        table.add_row(
            item.case,
            f"{item.messages:,}",
            f"{item.per_second:,.0f}",
            f"{item.cpu_share:.2f}",
            f"{item.cpu_us_per_message:,.0f}",
            f"{item.peak_mib:.0f}",
            "" if item.growth_mib is None else f"{item.growth_mib:+.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
