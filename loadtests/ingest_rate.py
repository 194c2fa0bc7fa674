"""How fast one consumer takes, dispatches and acknowledges messages, and what it costs.

    python -m loadtests.ingest_rate [--messages 200000] [--quick]

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
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from ingest.consumer import Consumer
from ingest.ledger import Ledger
from ingest.local_stack import LocalAws, use_dummy_credentials
from ingest.queue import BATCH_ENTRIES, Message, SqsQueue
from loadtests.metering import run_workers_beside_others
from serve_app.config import AppConfig, AwsConfig, LedgerConfig, QueueConfig
from serve_app.contracts import Box, Cutout, Job, Outcome
from serve_app.storage import ObjectInfo, ObjectStore, aws_client, open_store

OUT = Path("out/bench/ingest.json")
SQS_CALL_S = 0.01
"""What a call of SQS takes within a region, about."""
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


class Standin:
    """Stands in for the pipeline: every job is done at once."""

    async def process(self, job: Job) -> Outcome:
        """Return what a job gives that was done."""
        return Outcome(
            job_id=job.job_id,
            run_id=job.run_id,
            status="done",
            source=job.source,
            output_bucket=job.output.bucket,
            output_key=f"{job.output.prefix}{job.source.key}/0123456789abcdef0123.png",
            output_bytes=1_000_000,
            cutout=Cutout(
                model="standin",
                width=1600,
                height=1200,
                subject=Box(left=10, top=10, right=1500, bottom=1100),
                mask_confidence=0.98,
                stages_ms={"fetch": 10.0, "decode": 10.0, "segment": 10.0, "encode": 10.0},
            ),
        )

    async def models(self) -> list[Any]:
        """Return the models that are served: none."""
        return []


class Feed:
    """A queue in memory that makes its messages as they are asked for."""

    max_receives = 5

    def __init__(self, messages: int, call_s: float) -> None:
        self._messages = messages
        self._call_s = call_s
        self._sent = 0
        self._held: set[str] = set()
        self._empty = asyncio.Event()
        self.deleted = 0

    async def receive(self, max_messages: int, wait_s: int, visibility_s: int) -> list[Message]:
        """See Queue."""
        await asyncio.sleep(self._call_s)
        count = min(max_messages, self._messages - self._sent)
        if count == 0:
            await asyncio.sleep(0.1)
        found = [self._message(self._sent + n) for n in range(count)]
        self._sent += count
        self._held.update(item.receipt_handle for item in found)
        return found

    async def extend(self, handles: Sequence[str], visibility_s: float) -> set[str]:
        """See Queue."""
        await asyncio.sleep(self._call_s)
        return {handle for handle in handles if handle not in self._held}

    async def delete(self, handles: Sequence[str]) -> set[str]:
        """See Queue."""
        await asyncio.sleep(self._call_s)
        assert self._held.issuperset(handles)
        self._held.difference_update(handles)
        self.deleted += len(handles)
        return set()

    async def release(self, message: Message, delay_s: float) -> None:
        """See Queue."""
        raise AssertionError("no job fails here")

    async def dead_letter(
        self, message: Message, code: str, reason: str, job_id: str | None = None
    ) -> bool:
        """See Queue."""
        raise AssertionError("no job fails here")

    async def backlog(self) -> tuple[int, int]:
        """See Queue."""
        return self._messages - self._sent, len(self._held)

    def _message(self, number: int) -> Message:
        name = f"m{number}"
        return Message(name, name, body(number), 1, datetime.now(UTC))


class Nowhere:
    """An object store that keeps nothing: the ledger's parts are made, and dropped."""

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """See ObjectStore."""
        return None

    def get(self, bucket: str, key: str, **conditions: Any) -> bytes:
        """See ObjectStore."""
        raise AssertionError("nothing is read here")

    def put(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        """See ObjectStore."""

    def put_if_absent(self, bucket: str, key: str, data: bytes, media_type: str) -> bool:
        """See ObjectStore."""
        return True

    def chunks(self, bucket: str, key: str) -> Any:
        """See ObjectStore."""
        return iter(())

    def list(self, bucket: str, prefix: str, after: str | None = None) -> Any:
        """See ObjectStore."""
        return iter(())

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Any:
        """See ObjectStore."""
        return iter(())


def body(number: int) -> str:
    """Return a message as ``foreedge bulk`` sends it."""
    fields = {
        "schema": 1,
        "job_id": f"{number:032x}",
        "run_id": "bench",
        "source": {"bucket": "photographs", "key": f"in/{number}.jpg", "etag": "0" * 32},
        "output": {"bucket": "photographs", "prefix": "cutouts/"},
        "recipe": "cutout",
    }
    return json.dumps(fields)


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
    import ray
    from ray import cloudpickle, serve

    from ingest.sqs_ingest import SqsIngest

    # A replica cannot import the main module of this process.
    cloudpickle.register_pickle_by_value(sys.modules[Standin.__module__])
    run_workers_beside_others()
    with LocalAws() as server, sending(server, messages) as config:
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
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
        finally:
            serve.shutdown()
            ray.shutdown()
    count = messages - first
    return result(case, count, seconds, used_s, peak, None)


def _replica_process() -> psutil.Process:
    # Workers are children of the raylet, which is one of ours.
    for process in psutil.Process().children(recursive=True):
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
    table = Table(title="One consumer; the pipeline is a stand-in that answers at once")
    table.add_column("queue", no_wrap=True)
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
