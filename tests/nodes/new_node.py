"""Start of a replica on a node that has just joined, in parts: ``python -m tests.nodes.new_node``.

A head and a small worker with ``HttpApi`` have an image that waits for a pipeline, which fits on
neither of them. Then a node with two CPUs starts and joins. Every time is wall time, from the logs
of Ray and Serve and from the kernel. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple, dataclass
from datetime import datetime
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import httpx

from ingest.local.application import APPLICATION
from ingest.local.processes import terminate_as_interrupt
from loadtests.harness.results import write_between_markers
from serve_app.config import AppConfig
from serve_app.models.registry import models_home
from tests.nodes.cluster import SERVE_PORT, Cluster
from tests.nodes.ground import FOLDER_VARIABLE, ROOT, problem, run_folder, run_inside
from tests.nodes.machines import Machine, Network

PARTS = ("schedule", "Python and Ray", "imports", "constructor and model", "first image")

_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""A node of EC2 gets its credentials within milliseconds. Here botocore would ask for them at an
address that does not answer, and wait for a second or two."""
_DOCUMENT = ROOT / "docs" / "operations" / "scaling.md"
_RESULTS = "new_node.jsonl"
_PIPELINE = "CutoutPipeline"
_CPUS = 2
_IMAGE = "raccoon.jpg"
_WITHIN_S = 120.0


@dataclass(frozen=True)
class Moments:
    """Moments of the start of a replica, in seconds since the epoch."""

    joined: float
    """Ray has registered the node, and schedules on it."""
    process: float
    """The process of the replica has started, or the node has joined if that was later."""
    ray: float
    """The process has Ray, and connects to its node."""
    imported: float
    """The class of the deployment is there, and Serve calls its constructor."""
    constructed: float
    """The constructor has returned, with the model loaded."""
    answered: float
    """The image that waited has its answer."""

    def parts(self) -> list[float]:
        """Return the seconds of each of ``PARTS``."""
        return [after - before for before, after in pairwise(astuple(self))]


def time_of(log: str, pattern: str) -> float:
    """Return the time of the last line of a log that a pattern matches, in seconds.

    Args:
        log: Lines with a local time such as ``2026-11-29 05:10:35,296``.
        pattern: Regular expression for what comes after the time.

    Raises:
        ValueError: No line matches.
    """
    found = re.findall(rf"(\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}}).*{pattern}", log)
    if not found:
        raise ValueError(f"no line with {pattern!r} in the log: {log[-2000:]}")
    return datetime.strptime(found[-1], "%Y-%m-%d %H:%M:%S,%f").timestamp()


def process_started_at(stat: str) -> float:
    """Return when a process started, in seconds since the epoch.

    Args:
        stat: Content of ``/proc/PID/stat``.
    """
    # The name of the program is in parentheses, and may contain spaces.
    ticks = int(stat.rpartition(")")[2].split()[19])
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - since_boot


class Station:
    """A head, and a worker whose ``HttpApi`` answers when a pipeline is there."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._cluster = Cluster(network, _CREDENTIALS)
        self._cluster.start_head()
        [self._worker] = self._cluster.start_workers(1, cpus=1)
        self._image = (files("ingest.local") / "real_photographs" / _IMAGE).read_bytes()

    def measure(self, model: str) -> Moments:
        """Let a node join that the pipeline of a model waits for, and end it again."""
        self._cluster.deploy([_application(model)])
        self._cluster.until(self._endpoint_answers, "HttpApi answers")
        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(self._answered_at)
            node = self._cluster.boot_worker(self._cluster.environment(), cpus=_CPUS)
            answered_at = answered.result(_WITHIN_S)
        moments = self._moments(node, answered_at)
        self._cluster.deploy([])
        self._cluster.until(lambda: not self._cluster.replicas(), "the application has ended")
        node.terminate()
        if node.wait(_WITHIN_S) is None:
            raise TimeoutError(f"{node} does not end")
        return moments

    def _endpoint_answers(self) -> bool:
        answer = httpx.get(f"{self._url()}/healthz", timeout=10, trust_env=False)
        return answer.status_code == 200

    def _url(self) -> str:
        return f"http://{self._worker.address}:{SERVE_PORT}"

    def _answered_at(self) -> float:
        """Ask for a cut-out until there is one, and return when it came."""
        deadline = time.monotonic() + _WITHIN_S
        with httpx.Client(timeout=_WITHIN_S, trust_env=False) as client:
            while True:
                answer = client.post(f"{self._url()}/v1/cutout", content=self._image)
                if answer.status_code == 200:
                    return time.time()
                # HttpApi waits a few seconds for a pipeline, and then says 504.
                if answer.status_code != 504 or time.monotonic() > deadline:
                    raise RuntimeError(f"HttpApi answers {answer.status_code}: {answer.text}")

    def _moments(self, node: Machine, answered_at: float) -> Moments:
        [replica] = [one for one in self._cluster.replicas() if one.deployment == _PIPELINE]
        assert replica.address == node.address
        started = process_started_at(node.call(["cat", f"/proc/{replica.pid}/stat"], {}))
        head = self._log(self._cluster.head, "gcs_server.out")
        joined = time_of(head, rf"Registering new node\. .*node_address={node.address}\b")
        serve = self._log(node, f"serve/replica_*_{_PIPELINE}_*.log")
        return Moments(
            joined=joined,
            process=max(joined, started),
            ray=time_of(
                self._log(node, f"python-core-worker-*_{replica.pid}.log"),
                "Constructing CoreWorkerProcess",
            ),
            imported=time_of(serve, "Started initializing replica"),
            constructed=time_of(serve, "Finished initializing replica"),
            answered=answered_at,
        )

    def _log(self, machine: Machine, pattern: str) -> str:
        folder = self._network.tmp(machine.name)
        [path] = folder.glob(f"ray/session_2*/logs/{pattern}")
        return path.read_text()


def _application(model: str) -> dict[str, object]:
    return {
        "name": APPLICATION,
        "route_prefix": "/",
        "import_path": "serve_app.app:build",
        "args": {
            "models": [model],
            # The machines have a home of their own.
            "u2net_home": str(models_home(AppConfig.load({}))),
            "segmenter": {"placement": "pipeline"},
            "pipeline": {"num_cpus": _CPUS, "threads": _CPUS},
        },
    }


def table(found: dict[str, list[Moments]]) -> str:
    """Return a row of medians for each model, in Markdown."""
    lines = [f"| model | {' | '.join(PARTS)} | until the first image | slowest |"]
    lines.append("|---|" + "---:|" * (len(PARTS) + 2))
    for model, runs in found.items():
        parts = zip(*(one.parts() for one in runs), strict=True)
        wholes = [one.answered - one.joined for one in runs]
        seconds = [*map(statistics.median, parts), statistics.median(wholes), max(wholes)]
        lines.append(f"| `{model}` | " + " | ".join(f"{one:.2f} s" for one in seconds) + " |")
    return "\n".join(lines)


def _inside(folder: Path, models: list[str], runs: int) -> None:
    with (
        (folder / _RESULTS).open("w") as results,
        terminate_as_interrupt(),
        Network(folder) as network,
    ):
        station = Station(network)
        for number in range(runs + 1):
            for model in models:
                moments = station.measure(model)
                print(f"{model}: {moments.parts()}", file=sys.stderr, flush=True)
                # The first run of each reads the files from the disk.
                if number:
                    stored = {"model": model, "moments": asdict(moments)}
                    print(json.dumps(stored), file=results, flush=True)


def main() -> None:
    """Measure each model, and print or write the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.nodes.new_node", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--models", nargs="+", default=["folio", "u2netp"], metavar="MODEL")
    parser.add_argument("--write-docs", action="store_true", help=f"write into {_DOCUMENT.name}")
    options = parser.parse_args()
    if inside := os.environ.get(FOLDER_VARIABLE):
        _inside(Path(inside), options.models, options.runs)
        return
    if trouble := problem():
        parser.error(trouble)
    with run_folder() as folder:
        arguments = ["--runs", str(options.runs), "--models", *options.models]
        if run_inside("tests.nodes.new_node", arguments, folder) != 0:
            sys.exit("the measurement failed")
        stored = map(json.loads, (folder / _RESULTS).read_text().splitlines())
    found: dict[str, list[Moments]] = {model: [] for model in options.models}
    for one in stored:
        found[one["model"]].append(Moments(**one["moments"]))
    print(text := table(found))
    if options.write_docs:
        write_between_markers(_DOCUMENT, "new-node", text)


if __name__ == "__main__":
    main()
