"""A backlog on a cluster without nodes: ``python -m tests.autoscaling.backlog_run``.

It must run in namespaces of its own (``isolation.run_isolated``), since it uses Ray's usual ports
and leaves its processes to the end of the namespace. The result is one line of JSON on standard
output.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from ray import serve

from ingest.local.application import APPLICATION
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.photographs import copy_real_photographs
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import read_outcomes
from ingest.sources.base import Entry
from ingest.sqs.backlog import read_backlog
from ingest.sqs.queue_client import QueueClient
from serve_app.app import build
from serve_app.config import AppConfig
from serve_app.models.registry import BUNDLED_MODEL
from tests.autoscaling.cluster import nodes_and_demand, start_head
from tests.autoscaling.isolation import enter
from tests.autoscaling.samples import BacklogRun, Sample
from tests.support.running_app import App, Aws

_UP_S, _DOWN_S = 1, 5
_PER_DRAIN_S = 50
"""Photographs that the policy is asked to drain in a second, so that it asks for more replicas than
one node has room for."""
_PER_REPLICA = 75
"""Photographs for each replica of a deployment at most. With fewer, a run starts fewer nodes."""
_LEAST = 4
"""Replicas that stay: one of each deployment."""
_EVERY_S = 0.5
_READ_TIMEOUT_S = 120
_WITHIN_S = 240.0
_ALIVE = ("STARTING", "RUNNING", "UPDATING")


class Watch:
    """Samples of the cluster, taken by a thread. A context manager."""

    def __init__(self, queue: QueueClient) -> None:
        self.samples: list[Sample] = []
        self._queue = queue
        self._started_at_s = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def now_s(self) -> float:
        return time.monotonic() - self._started_at_s

    def until(self, condition: Callable[[Sample], bool]) -> float:
        """Wait for a sample that meets a condition, and return its time."""
        deadline = self.now_s() + _WITHIN_S
        first = len(self.samples)
        while self.now_s() < deadline:
            for sample in self.samples[first:]:
                if condition(sample):
                    return sample.at_s
            assert self._thread.is_alive(), "the watch ended, see standard error"
            time.sleep(_EVERY_S / 2)
        raise AssertionError(f"not within {_WITHIN_S:g} s: {self.samples[-1]}")

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY_S):
            at_s = round(self.now_s(), 1)
            backlog = read_backlog(self._queue)
            application = serve.status().applications.get(APPLICATION)
            replicas: dict[str, int] = {}
            for deployment in application.deployments.values() if application else ():
                for state, number in deployment.replica_states.items():
                    replicas[state] = replicas.get(state, 0) + number
            nodes, without_node = nodes_and_demand()
            sample = Sample(
                at_s=at_s,
                waiting=backlog.waiting,
                in_flight=backlog.in_flight,
                wanted=sum(replicas.get(state, 0) for state in _ALIVE),
                running=replicas.get("RUNNING", 0),
                without_node=without_node,
                nodes=nodes,
            )
            if not self.samples or self.samples[-1].state != sample.state:
                print(sample, file=sys.stderr, flush=True)
            self.samples.append(sample)


def settings(server: LocalAws, queue_url: str, bucket: str, photographs: int) -> dict[str, Any]:
    """Return the settings of an application of which one node holds the least replicas."""
    return {
        "models": [BUNDLED_MODEL],
        # Patient, because the local server starts no faster than the nodes around it.
        "aws": {"endpoint_url": server.endpoint_url, "read_timeout_s": _READ_TIMEOUT_S},
        "queue": {"url": queue_url, "long_poll_s": 1, "stop_grace_s": 3},
        "ledger": {"bucket": bucket, "part_interval_s": 0.5},
        "pipeline": {"threads": 1, "num_cpus": 1},
        "segmenter": {"threads": 1, "num_cpus": 1},
        "autoscaling": {
            "max_replicas": max(2, photographs // _PER_REPLICA),
            "drain_target_s": _UP_S + max(_UP_S, photographs / _PER_DRAIN_S),
            "upscale_delay_s": _UP_S,
            "downscale_delay_s": _DOWN_S,
            "look_back_s": 11,
            "read_period_s": 1,
        },
    }


def run_backlog(photographs: int, folder: Path) -> BacklogRun:
    """Drain a backlog with a cluster that has no node at its start, and none at its end.

    Args:
        photographs: Number of jobs. Their images are the bundled photographs, repeated.
        folder: Folder with a short path.
    """
    with LocalAws() as server:
        aws = Aws(server)
        bucket = aws.bucket()
        queue_url, dead_url = aws.queue()
        args = settings(server, queue_url, bucket, photographs)
        start_head(folder)
        serve.start(proxy_location="HeadOnly")
        app = App("http://127.0.0.1:8000", AppConfig.load(args), dead_url, aws)
        entries = _store_photographs(app, photographs, folder)
        moments = {}
        with Watch(QueueClient(app.sqs, queue_url)) as watch:
            monitor = app.send(entries, {})
            moments["images sent"] = watch.until(lambda now: now.waiting == photographs)
            serve.run(build(args), name=APPLICATION, route_prefix="/")
            moments["application ready"] = watch.now_s()
            *_, status = app.follow(monitor)
            moments["drained"] = watch.until(lambda now: now.backlog == 0)
            moments["replicas back to the least"] = watch.until(lambda now: now.running == _LEAST)
            # Serve moves none of the other replicas, so that several nodes may stay.
            most = max(sample.nodes for sample in watch.samples)
            moments["idle nodes given up"] = watch.until(lambda now: now.nodes < most)
            serve.delete(APPLICATION)
            moments["application deleted"] = watch.now_s()
            moments["no node"] = watch.until(lambda now: now.nodes == 0)
        outcomes = list(read_outcomes(RunFolder(app.store, app.ledger, status.run_id)))
        pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
        stored = {item["Key"] for page in pages for item in page["Contents"]}
        return BacklogRun(
            samples=watch.samples,
            jobs=[entry.key for entry in entries],
            records=[
                (outcome.source.key, outcome.status) for outcome in outcomes if outcome.source
            ],
            results=len(stored & {each.output_key for each in outcomes}),
            moments={name: round(at_s, 1) for name, at_s in moments.items()},
        )


def _store_photographs(app: App, number: int, folder: Path) -> list[Entry]:
    """Store as many objects, each with an own key and one of the bundled photographs."""
    paths = copy_real_photographs(folder / "photographs", number)
    contents = [path.read_bytes() for path in paths]
    repeated = itertools.islice(itertools.cycle(contents), number)
    return app.put({f"{index:04d}.jpg": data for index, data in enumerate(repeated)})


def main() -> None:
    """Run a backlog in the namespaces of this process, and print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.autoscaling.backlog_run")
    parser.add_argument("--photographs", type=int, default=300)
    photographs = parser.parse_args().photographs
    enter()
    use_dummy_credentials()
    print(run_backlog(photographs, Path("/tmp")).to_json())


if __name__ == "__main__":
    main()
