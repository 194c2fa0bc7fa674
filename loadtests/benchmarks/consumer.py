"""Messages per second, CPU time and memory of one consumer.

    python -m loadtests.benchmarks.consumer [--messages 200000] [--quick]

The pipeline is a stand-in that answers at once, so that only the consumer is measured. It runs with
queues in memory that answer at once, after the time that SQS takes within a region, and after that
of a long way. The latter is measured over the wire too, with a fast server of SQS's protocol.
Then come moto's SQS server on this machine, and SqsIngest on Ray with moto's server. Each case
runs in a process of its own. The results go to the terminal and into ``out/bench/ingest.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import platform
import resource
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
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
from loadtests.harness.metering import run_workers_at_normal_priority
from loadtests.harness.results import write_result
from loadtests.harness.sqs_server import sqs_server
from loadtests.harness.standins import (
    DiscardingStore,
    GeneratedQueue,
    InstantPipeline,
    job_message,
)
from serve_app.aws import aws_client
from serve_app.config import AppConfig, AwsConfig
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore

SQS_CALL_S = 0.01
"""Approximate duration of a call to SQS within a region."""
FAR_CALL_S = 0.03
"""Duration of a call to SQS over a long way, or of a slow one."""
_FAR_PERMITS = 1_000
_LOGICAL_CPUS = 4
_MEMORY_SAMPLES = 20
_MAX_WAITING = 50
_TIMEOUT_S = 900


@dataclass(frozen=True)
class ConsumerResult:
    """Rate, CPU time and memory of one case."""

    case: str
    messages: int
    seconds: float
    per_second: float
    cpu_share: float
    """Cores in use, on average."""
    cpu_us_per_message: float
    peak_mib: float
    growth_mib: float | None
    """Growth of the mean memory from the third quarter of the run to the last, if sampled."""


def measure_in_memory(
    case: str, messages: int, call_s: float, permits: int | None = None
) -> ConsumerResult:
    """Measure a consumer with a queue in memory."""
    queue = GeneratedQueue(messages, call_s)
    config = _config("memory", permits)
    consuming = consume(case, queue, DiscardingStore(), config, messages, _MEMORY_SAMPLES)
    return asyncio.run(consuming)


def measure_on_server(case: str, messages: int, call_s: float, permits: int) -> ConsumerResult:
    """Measure a consumer over the wire, with a fast server of SQS's protocol."""
    use_dummy_credentials()

    async def measure(config: AppConfig) -> ConsumerResult:
        assert config.queue is not None
        queue = await SqsQueue.open(config.queue, config.aws)
        try:
            return await consume(case, queue, DiscardingStore(), config, messages, 0)
        finally:
            await queue.close()

    with sqs_server(messages, call_s) as url:
        return asyncio.run(measure(_config(url, permits)))


def _config(url: str, permits: int | None) -> AppConfig:
    queue = {"url": url} | ({} if permits is None else {"max_in_flight": permits})
    endpoint_url = None if url == "memory" else url.rpartition("/")[0].rpartition("/")[0]
    return AppConfig.load(
        {"queue": queue, "ledger": {"bucket": "bench"}, "aws": {"endpoint_url": endpoint_url}}
    )


def measure_on_moto(case: str, messages: int) -> ConsumerResult:
    """Measure a consumer with moto's SQS and S3."""
    use_dummy_credentials()

    async def measure(config: AppConfig) -> ConsumerResult:
        assert config.queue is not None
        queue = await SqsQueue.open(config.queue, config.aws)
        try:
            return await consume(case, queue, open_store(config), config, messages, 0)
        finally:
            await queue.close()

    with LocalAws() as server, sending(server, messages) as config:
        return asyncio.run(measure(config))


def measure_on_ray(case: str, messages: int) -> ConsumerResult:
    """Measure SqsIngest on Ray, with moto's SQS and S3. The pipeline's stand-in is a deployment."""
    use_dummy_credentials()
    # Imported in this case's process alone, and before Ray's environment is set, after which a
    # handle needs an event loop in this process.
    from ray import serve

    from ingest.consumer.deployment import SqsIngest

    run_workers_at_normal_priority()
    with (
        LocalAws() as server,
        sending(server, messages) as config,
        local_serve(_LOGICAL_CPUS, port=free_port()),
    ):
        standin = serve.deployment(InstantPipeline).options(max_ongoing_requests=256).bind()
        ingest = serve.deployment(SqsIngest).options(ray_actor_options={"num_cpus": 0.1})
        handle = serve.run(ingest.bind(config, standin), name="bench", route_prefix=None)
        process = None
        while process is None:
            stats = handle.status.remote().result()
            process = _replica_process() if stats.get("deleted") else None
        first, started_at, cpu_s = stats["deleted"], time.perf_counter(), _cpu_s(process)
        peak_mib = 0.0
        while stats["deleted"] < messages:
            time.sleep(0.2)
            stats = handle.status.remote().result()
            peak_mib = max(peak_mib, process.memory_info().rss / 2**20)
        seconds = time.perf_counter() - started_at
        used_s = _cpu_s(process) - cpu_s
    return summarize(case, messages - first, seconds, used_s, peak_mib, None)


def _replica_process() -> psutil.Process:
    # Workers are children of the raylet, which is a child of this process.
    for process in psutil.Process().children(recursive=True):
        # A process that has just ended has no command line.
        with suppress(psutil.NoSuchProcess):
            if any("SqsIngest" in part for part in process.cmdline()):
                return process
    raise AssertionError("SqsIngest has no process")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextmanager
def sending(server: LocalAws, messages: int) -> Iterator[AppConfig]:
    """Fill a queue from a process of its own, and yield the settings of that queue.

    The queue is filled a little at a time, because moto counts all messages of a queue for each
    message that it hands out.
    """
    name = f"bench-{uuid.uuid4().hex[:8]}"
    server.create_bucket(name)
    url = server.create_queue(name)
    context = multiprocessing.get_context("spawn")
    arguments = (server.endpoint_url, url, messages)
    sender = context.Process(target=keep_filled, args=arguments, daemon=True)
    sender.start()
    yield AppConfig.load(
        {
            "aws": {"endpoint_url": server.endpoint_url},
            "queue": {"url": url, "long_poll_s": 1},
            "ledger": {"bucket": name},
        }
    )
    sender.join()


def keep_filled(endpoint_url: str, url: str, messages: int) -> None:
    """Send messages to a queue whenever only a few are waiting in it."""
    client = aws_client("sqs", AwsConfig(endpoint_url=endpoint_url))
    wanted: Any = ["ApproximateNumberOfMessages"]
    sent = 0
    while sent < messages:
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=wanted)["Attributes"]
        if int(found[wanted[0]]) > _MAX_WAITING:
            time.sleep(0.05)
            continue
        for start in range(sent, min(sent + _MAX_WAITING, messages), BATCH_ENTRIES):
            numbers = range(start, min(start + BATCH_ENTRIES, messages))
            entries = [
                {"Id": f"{number}", "MessageBody": job_message(number)} for number in numbers
            ]
            response = client.send_message_batch(QueueUrl=url, Entries=entries)
            assert not response.get("Failed"), response
            sent = numbers.stop


async def consume(
    case: str,
    queue: Any,
    store: ObjectStore,
    config: AppConfig,
    messages: int,
    memory_samples: int,
) -> ConsumerResult:
    """Measure a consumer until it has deleted all messages.

    Args:
        case: Name of the case.
        queue: Queue with the messages.
        store: Store of the ledger.
        config: Settings with a queue and a ledger.
        messages: Number of messages.
        memory_samples: Number of times that the memory is sampled. 0 to leave it out.
    """
    assert config.queue is not None
    assert config.ledger is not None
    ledger = Ledger(store, config.ledger)
    consumer = Consumer(queue, InstantPipeline().process, ledger, config.queue)
    memory: list[float] = []
    process = psutil.Process()
    started_at, cpu_s = time.perf_counter(), time.process_time()
    running = asyncio.create_task(consumer.run())
    async with asyncio.timeout(_TIMEOUT_S):
        while (deleted := consumer.stats.deleted) < messages:
            await asyncio.sleep(0.02)
            if memory_samples and deleted * memory_samples >= messages * (len(memory) + 1):
                memory.append(process.memory_info().rss / 2**20)
    seconds, used_s = time.perf_counter() - started_at, time.process_time() - cpu_s
    await consumer.stop()
    await running
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # The first half warms up: the ledger starts threads, each with memory of its own.
    quarter = len(memory) // 4
    growth = fmean(memory[-quarter:]) - fmean(memory[-2 * quarter : -quarter]) if quarter else None
    return summarize(case, messages, seconds, used_s, peak_mib, growth)


def summarize(
    case: str,
    messages: int,
    seconds: float,
    cpu_s: float,
    peak_mib: float,
    growth_mib: float | None,
) -> ConsumerResult:
    """Return the result of a case from its measurements."""
    return ConsumerResult(
        case=case,
        messages=messages,
        seconds=round(seconds, 2),
        per_second=round(messages / seconds, 1),
        cpu_share=round(cpu_s / seconds, 3),
        cpu_us_per_message=round(cpu_s / messages * 1e6, 1),
        peak_mib=round(peak_mib, 1),
        growth_mib=None if growth_mib is None else round(growth_mib, 1),
    )


def main() -> None:
    """Measure every case, print the results, and write them as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.consumer",
        description="Measure messages per second, CPU time and memory of one consumer.",
    )
    parser.add_argument("--messages", type=int, default=200_000, help="number of messages")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the messages")
    options = parser.parse_args()
    count = options.messages // 100 if options.quick else options.messages
    few = max(200, count // 100)
    far = (FAR_CALL_S, _FAR_PERMITS)
    far_text = f"{FAR_CALL_S * 1000:.0f} ms a call, {_FAR_PERMITS:,} permits"
    cases: list[tuple[Callable[..., ConsumerResult], tuple[Any, ...]]] = [
        (measure_in_memory, ("memory, answers at once", count, 0.0)),
        (
            measure_in_memory,
            (f"memory, {SQS_CALL_S * 1000:.0f} ms a call", count // 4, SQS_CALL_S),
        ),
        (measure_in_memory, (f"memory, {far_text}", count // 4, *far)),
        (measure_on_server, (f"over the wire, {far_text}", count // 10, *far)),
        (measure_on_moto, ("moto's SQS and S3", few)),
        (measure_on_ray, ("SqsIngest on Ray, moto", few)),
    ]
    context = multiprocessing.get_context("spawn")
    load_before = round(psutil.getloadavg()[0], 1)
    results = []
    for function, arguments in cases:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            results.append(pool.submit(function, *arguments).result())
    print_table(results)
    machine = {
        "cpus": psutil.cpu_count(),
        "machine": platform.machine(),
        "load_before": load_before,
    }
    write_result("ingest.json", {"machine": machine, "results": [asdict(item) for item in results]})


def print_table(results: Sequence[ConsumerResult]) -> None:
    """Print results as a table."""
    title = "One consumer, with a stand-in for the pipeline that answers at once"
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
