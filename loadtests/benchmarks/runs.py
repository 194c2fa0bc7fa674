"""What it costs to look at a run of a million: the real commands on a ledger that was made up.

Writes a synthetic run into a local store (its list of jobs, its records in parts of 1,000 from
four consumers, an object for each result), then runs ``foreedge status``, ``report``, ``errors``
and ``verify`` on it, each as a process of its own, and shows their time and their peak memory::

    python -m loadtests.benchmarks.runs --records 1000000

Of the records 1 % are failures, 3 % have doubtful masks, and 0.5 % are there twice. One object is
an empty file, a thousand of them in a folder: what is measured is the ledger and the listing, not
pictures, and not the network of S3, which adds the time of its calls (one for each 1,000 records
and for each 1,000 objects).

``foreedge bulk`` sends the jobs of a compressed manifest to a server that stands in for SQS: it
takes everything at once and keeps nothing.
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


def make(root: Path, records: int, seed: int) -> None:
    """Write a run.

    Args:
        root: Of the local store.
        records: Its jobs.
        seed: The same one makes the same run.
    """
    store = LocalStore(root)
    entries = _entries(records)
    run = RunFolder(store, LEDGER, RUN)
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
            lines = [line for n, e in enumerate(some) for line in _lines(first + n, e, generator)]
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


def _lines(number: int, entry: Entry, generator: random.Random) -> Iterator[bytes]:
    """Yield a job's records, in the form in which the ledger has them."""
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


class StandIn(BaseHTTPRequestHandler):
    """Answers as SQS does where it accepts everything."""

    protocol_version = "HTTP/1.1"
    # Or else each answer waits for the acknowledgement of its head.
    wbufsize = -1

    def do_POST(self) -> None:
        """Accept what is sent."""
        request = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
        taken = [
            {
                "Id": item["Id"],
                "MessageId": item["Id"],
                "MD5OfMessageBody": hashlib.md5(item["MessageBody"].encode()).hexdigest(),
            }
            for item in request.get("Entries", [])
        ]
        answer = orjson.dumps({"Successful": taken, "Failed": [], "Attributes": {}})
        self.send_response(200)
        self.send_header("content-type", "application/x-amz-json-1.0")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[str]:
    """Run the stand-in; gives its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def write_config(path: Path, store: Path, url: str) -> Path:
    """Write the settings for a store and the stand-in's URL; return the path."""
    settings = {
        "storage": {"local_root": str(store)},
        "ledger": {"bucket": BUCKET},
        "aws": {"endpoint_url": url},
        "queue": {"url": f"{url}/queue"},
    }
    path.write_text(json.dumps(settings))
    return path


def measure_bulk(root: Path, messages: int, url: str) -> None:
    """Send a run to the stand-in, and print a row of the table."""
    shutil.rmtree(root / "bulk", ignore_errors=True)
    manifest = root / "manifest.csv.gz"
    with gzip.open(manifest, "wt", compresslevel=1) as file:
        file.write("bucket,key,etag\n")
        file.writelines(f"{e.bucket},{e.key},{e.etag}\n" for e in _entries(messages))
    config = write_config(root / "bulk.json", root / "bulk", url)
    wall_s, cpu_s, peak_mb, code = measure(["bulk", str(manifest), "--run-id", RUN], config)
    name = f"`bulk` of {messages:,}: {messages / wall_s:,.0f} messages/s"
    print(f"| {name} | {wall_s:.1f} s | {cpu_s:.1f} s | {peak_mb:.0f} MB | {code} |")


def measure(command: list[str], config: Path) -> tuple[float, float, float, int]:
    """Run the command line.

    Returns:
        Seconds, seconds of processor time, peak resident megabytes, and the exit code.
    """
    started_at = time.perf_counter()
    program = str(Path(sys.executable).with_name("foreedge"))
    words = [program, *command, "--config", str(config)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    # Linux gives kilobytes.
    peak_mb = usage.ru_maxrss * 1024 / 1e6
    cpu_s = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - started_at, cpu_s, peak_mb, process.returncode


def main() -> None:
    """Make a run, measure the commands, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--messages", type=int, default=200_000, help="That bulk sends.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--root", type=Path, help="Folder to keep the run in, and to use again.")
    options = parser.parse_args()
    use_dummy_credentials()
    root = options.root or Path(tempfile.mkdtemp(prefix="foreedge-ledger-"))
    store = root / f"store-{options.records}-{options.seed}"
    try:
        if not (store / "made").exists():
            started_at = time.perf_counter()
            make(store, options.records, options.seed)
            (store / "made").touch()
            print(f"made in {time.perf_counter() - started_at:.0f} s")
        commands = {
            "status": ["status", RUN],
            "report": ["report", RUN, "--out", str(root / "report")],
            "errors": ["errors", RUN, "--csv", str(root / "errors.csv")],
            "verify": ["verify", RUN],
        }
        print(f"\n{options.records:,} jobs, {options.records // 200:,} of them recorded twice\n")
        print(
            "| command | time | processor time | peak memory | exit code |\n|---|---|---|---|---|"
        )
        with serving() as url:
            config = write_config(root / "config.json", store, url)
            for name, command in commands.items():
                wall_s, cpu_s, peak_mb, code = measure(command, config)
                print(f"| `{name}` | {wall_s:.1f} s | {cpu_s:.1f} s | {peak_mb:.0f} MB | {code} |")
            for messages in (options.messages // 10, options.messages):
                measure_bulk(root, messages, url)
        for name in ("report.json", "report.html"):
            print(f"{name}: {(root / 'report' / name).stat().st_size / 1e6:.1f} MB")
    finally:
        if options.root is None:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
