"""Time and memory of the commands on a run of a million jobs.

The benchmark writes a synthetic run into a local store: its list of jobs, its records in parts of
1,000 from four consumers, and an object for each result. Then it runs ``foreedge status``,
``report``, ``errors`` and ``verify`` on it, each as a process of its own, and prints their time and
peak memory::

    python -m loadtests.benchmarks.runs --records 1000000

Of the records, 1 % are failures, 3 % have doubtful masks and 0.5 % appear twice. Every object is an
empty file, a thousand of them in a folder, so that the ledger and the listing are measured, without
images. S3's network would add the time of one call for each 1,000 records and 1,000 objects.

``foreedge bulk`` sends the jobs of a compressed manifest to a stand-in for SQS that accepts
everything at once and keeps nothing.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson

from ingest.local.aws import use_dummy_credentials
from ingest.runs.folder import RunFolder
from ingest.runs.job_list import PART_JOBS, JobList, Sent
from ingest.runs.manifest import RunManifest, write_manifest
from ingest.sources.base import Entry
from serve_app.config import LedgerConfig
from serve_app.contracts.job import Output
from serve_app.contracts.recipe import Recipe
from serve_app.storage.local import LocalStore

RUN = "synthetic"
BUCKET = "b"
LEDGER = LedgerConfig(bucket=BUCKET)
START = datetime(2026, 1, 1, tzinfo=UTC)

_RATE_PER_S = 500
_CONSUMERS = 4
_STAGES = ("fetch", "decode", "resize", "segment", "mask", "compose", "encode", "publish")


def write_run(root: Path, records: int, seed: int) -> None:
    """Write a synthetic run.

    Args:
        root: Root folder of the local store.
        records: Number of jobs.
        seed: Seed of the random values. The same seed gives the same run.
    """
    entries = _entries(records)
    run = RunFolder(LocalStore(root), LEDGER, RUN)
    jobs = JobList(run)
    manifest = RunManifest(
        run_id=RUN,
        created_at=START,
        description="s3://b/in/",
        output=Output(bucket=BUCKET),
        recipe=Recipe(),
        jobs=records,
        queue_url="http://127.0.0.1:9/none",
    )
    write_manifest(run, manifest)
    jobs.write_sent(Sent(jobs=records, complete=True))
    generator = random.Random(seed)
    for number, start in enumerate(range(0, records, PART_JOBS)):
        part = [next(entries) for _ in range(min(PART_JOBS, records - start))]
        jobs.write(number, part)
        for offset in range(0, len(part), LEDGER.part_records):
            first = start + offset
            some = part[offset : offset + LEDGER.part_records]
            lines = [line for n, e in enumerate(some) for line in _records(first + n, e, generator)]
            at = START + timedelta(seconds=(first + len(some)) / _RATE_PER_S)
            consumer = first // LEDGER.part_records % _CONSUMERS
            name = f"{at:%Y%m%dT%H%M%S.%fZ}-consumer{consumer}-{first:06d}"
            run.write_part(run.part_key("results", name), lines)
            folder = root / BUCKET / f"cutouts/{first // 1000:06d}"
            folder.mkdir(parents=True, exist_ok=True)
            for n, entry in enumerate(some):
                if not _fails(first + n):
                    (folder / f"{entry.job_id}.png").touch()


def _entries(records: int) -> Iterator[Entry]:
    for number in range(records):
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        key = f"in/{number // 1000:06d}/photograph-{number:08d}.jpg"
        yield Entry(BUCKET, key, digest[32:], None, digest[:32])


def _fails(number: int) -> bool:
    return number % 100 == 7


def _records(number: int, entry: Entry, generator: random.Random) -> Iterator[bytes]:
    """Yield a job's records as lines of the ledger."""
    finished_at = START + timedelta(seconds=number / _RATE_PER_S)
    record: dict[str, Any] = {
        "job_id": entry.job_id,
        "run_id": RUN,
        "status": "failed" if _fails(number) else "done",
        "source": {"bucket": entry.bucket, "key": entry.key, "etag": entry.etag},
        "receive_count": 1,
        "finished_at": finished_at.isoformat().replace("+00:00", "Z"),
    }
    if _fails(number):
        code = generator.choice(["no_subject", "corrupt_image", "subject_too_small"])
        record |= {"code": code, "message": "a reason as long as most are", "retry": "permanent"}
    else:
        confidence = generator.uniform(0.8, 1) if number % 33 else generator.uniform(0, 0.8)
        record |= {
            "output_bucket": BUCKET,
            "output_key": f"cutouts/{number // 1000:06d}/{entry.job_id}.png",
            "output_bytes": 1_234_567,
            "cutout": {
                "model": "folio",
                "width": 1600,
                "height": 1200,
                "subject": {"left": 212, "top": 108, "right": 1404, "bottom": 1101},
                "mask_confidence": round(confidence, 4),
                "stages_ms": {s: round(generator.uniform(1, 90), 2) for s in _STAGES},
            },
        }
    line = orjson.dumps(record)
    yield line
    if number % 200 == 3:
        yield line


class AcceptingQueue(BaseHTTPRequestHandler):
    """A stand-in for SQS that accepts every message."""

    protocol_version = "HTTP/1.1"
    # Buffered, because otherwise each response waits for the acknowledgement of its headers.
    wbufsize = -1

    def do_POST(self) -> None:
        """Accept the messages of a request."""
        request = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        accepted = [
            {
                "Id": item["Id"],
                "MessageId": item["Id"],
                "MD5OfMessageBody": hashlib.md5(item["MessageBody"].encode()).hexdigest(),
            }
            for item in request.get("Entries", [])
        ]
        body = orjson.dumps({"Successful": accepted, "Failed": [], "Attributes": {}})
        self.send_response(200)
        self.send_header("content-type", "application/x-amz-json-1.0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def accepting_queue() -> Iterator[str]:
    """Run the stand-in for SQS, and yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), AcceptingQueue) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def write_config(path: Path, store: Path, url: str) -> Path:
    """Write the settings for a store and the URL of a queue, and return the file's path."""
    settings = {
        "storage": {"local_root": str(store)},
        "ledger": {"bucket": BUCKET},
        "aws": {"endpoint_url": url},
        "queue": {"url": f"{url}/queue"},
    }
    path.write_text(json.dumps(settings))
    return path


@dataclass(frozen=True, slots=True)
class CommandCost:
    """Cost of one command."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    exit_code: int

    def row(self, name: str) -> str:
        """Return a row of the table."""
        return (
            f"| {name} | {self.wall_s:.1f} s | {self.cpu_s:.1f} s | {self.peak_mb:.0f} MB | "
            f"{self.exit_code} |"
        )


def measure_command(command: list[str], config: Path) -> CommandCost:
    """Run ``foreedge`` with a command, and return its cost."""
    started_at = time.perf_counter()
    program = str(Path(sys.executable).with_name("foreedge"))
    words = [program, *command, "--config", str(config)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # Linux reports kilobytes.
    peak_mb = usage.ru_maxrss * 1024 / 1e6
    cpu_s = usage.ru_utime + usage.ru_stime
    return CommandCost(time.perf_counter() - started_at, cpu_s, peak_mb, process.returncode)


def print_cost_of_bulk(root: Path, messages: int, url: str) -> None:
    """Send a run to the stand-in for SQS, and print a row of the table."""
    shutil.rmtree(root / "bulk", ignore_errors=True)
    manifest = root / "manifest.csv.gz"
    with gzip.open(manifest, "wt", compresslevel=1) as file:
        file.write("bucket,key,etag\n")
        file.writelines(f"{e.bucket},{e.key},{e.etag}\n" for e in _entries(messages))
    config = write_config(root / "bulk.json", root / "bulk", url)
    cost = measure_command(["bulk", str(manifest), "--run-id", RUN], config)
    print(cost.row(f"`bulk` of {messages:,}: {messages / cost.wall_s:,.0f} messages/s"))


def print_costs(root: Path, store: Path, messages: int) -> None:
    """Measure the commands, and print a row of the table for each.

    Args:
        root: Folder for the files of the benchmark.
        store: Root folder of the local store with the run.
        messages: Largest number of messages that ``foreedge bulk`` sends.
    """
    commands = {
        "status": ["status", RUN],
        "report": ["report", RUN, "--out", str(root / "report")],
        "errors": ["errors", RUN, "--csv", str(root / "errors.csv")],
        "verify": ["verify", RUN],
    }
    print("| command | time | processor time | peak memory | exit code |\n|---|---|---|---|---|")
    with accepting_queue() as url:
        config = write_config(root / "config.json", store, url)
        for name, command in commands.items():
            print(measure_command(command, config).row(f"`{name}`"))
        for count in (messages // 10, messages):
            print_cost_of_bulk(root, count, url)
    for name in ("report.json", "report.html"):
        print(f"{name}: {(root / 'report' / name).stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Write a run, measure the commands, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.runs",
        description="Measure time and memory of the commands on a large run.",
    )
    add = parser.add_argument
    add("--records", type=int, default=1_000_000, help="jobs of the run")
    add("--messages", type=int, default=200_000, help="messages that foreedge bulk sends")
    add("--seed", type=int, default=1, help="seed of the run's random values")
    add("--root", type=Path, help="folder that keeps the run, to use it again")
    options = parser.parse_args()
    use_dummy_credentials()
    root = options.root or Path(tempfile.mkdtemp(prefix="foreedge-ledger-"))
    store = root / f"store-{options.records}-{options.seed}"
    try:
        if not (store / "made").exists():
            started_at = time.perf_counter()
            write_run(store, options.records, options.seed)
            (store / "made").touch()
            print(f"Wrote the run in {time.perf_counter() - started_at:.0f} s")
        print(f"\n{options.records:,} jobs, {options.records // 200:,} of them recorded twice\n")
        print_costs(root, store, options.messages)
    finally:
        if options.root is None:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
