"""Memory of a replica that has just started: ``python -m loadtests.benchmarks.replica_memory``.

Serve gives a replica two pickles, the class of its deployment and the arguments of its constructor.
The benchmark opens both in a fresh interpreter, for each deployment, and prints the resident memory
and the CPU time that this took. An interpreter with Ray Serve alone is the first row.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import subprocess
import sys

from ray import cloudpickle
from ray.serve._private.build_app import build_app

from serve_app.app import build

_SETTINGS = {"queue.url": "http://127.0.0.1:9/queue", "ledger.bucket": "ledger"}
_RAY_ALONE = "Ray Serve alone"

_OPEN_PICKLES = """
import json, pickle, sys, time
from pathlib import Path
from ray import cloudpickle, serve
started_s = time.process_time()
for blob in pickle.load(sys.stdin.buffer):
    cloudpickle.loads(blob)
cpu_s = time.process_time() - started_s
status = Path("/proc/self/status").read_text()
print(json.dumps([int(status.partition("VmRSS:")[2].split()[0]) / 1024, cpu_s]))
"""


def measure(blobs: list[bytes], runs: int) -> tuple[float, float]:
    """Return the resident memory in MB and the CPU seconds of opening pickles, medians of runs."""
    found = []
    for _ in range(runs):
        command = [sys.executable, "-c", _OPEN_PICKLES]
        done = subprocess.run(command, input=pickle.dumps(blobs), capture_output=True, check=True)
        found.append(json.loads(done.stdout))
    memory_mb, cpu_s = (statistics.median(values) for values in zip(*found, strict=True))
    return memory_mb, cpu_s


def main() -> None:
    """Measure every deployment with the default settings, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.replica_memory",
        description="Measure the memory that the imports of each replica take.",
    )
    parser.add_argument("--runs", type=int, default=7, help="runs of each (default: 7)")
    runs = parser.parse_args().runs
    pickles = {_RAY_ALONE: list[bytes]()}
    for deployment in build_app(build(_SETTINGS), name="default").deployments:
        parts = (deployment.func_or_class, deployment.init_args)
        pickles[deployment.name] = [cloudpickle.dumps(part) for part in parts]
    print("| replica | resident | CPU time of its imports |\n|---|---:|---:|")
    for name, blobs in pickles.items():
        memory_mb, cpu_s = measure(blobs, runs)
        print(f"| {name} | {memory_mb:.1f} MB | {cpu_s:.2f} s |")


if __name__ == "__main__":
    main()
