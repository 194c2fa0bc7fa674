"""Autoscaling on a Ray cluster of three raylets, with a real SQS protocol and the real ingest.

The pixels and the model are stand-ins that sleep, because otherwise the two cores would be the
limit. Their time per image is declared here, and the policy measures it through their replicas.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import ray
from ray import cloudpickle, serve
from ray.cluster_utils import Cluster

from ingest.local.application import ray_environment
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.ports import free_port
from ingest.messages.build import new_run_id
from ingest.runs.folder import RunFolder
from ingest.runs.send import plan_run, send_run
from ingest.sources.base import Entry
from ingest.sqs.backlog import read_backlog
from ingest.sqs.queue_client import QueueClient
from serve_app.app import ingest_deployment
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.job import Job, Output
from serve_app.contracts.outcome import Outcome
from serve_app.replica_options import pipeline_replicas, segmenter_replicas
from serve_app.serving.kept_reports import kept_reports
from serve_app.serving.metrics import DRAIN_SECONDS
from serve_app.serving.service_time import ServiceTime
from serve_app.storage import open_store

APP = "scaling"
BUCKET = "scaling"
SEGMENT_S, PIXELS_S = 1.0, 0.4
DRAIN_TARGET_S = 80
UP_S, DOWN_S = 4, 10
JOBS = 270
"""270 images of 1 s in 76 s take four segmenters. With 0.4 s each, they take two pipelines."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


class StandIn:
    """A deployment that processes one image at a time, in a known time."""

    def __init__(self, seconds: float, then: Any = None) -> None:
        self._seconds = seconds
        self._then = then
        self._turn = asyncio.Lock()
        self._pace = ServiceTime(threads=1)

    async def process(self, job: Job) -> Outcome:
        async with self._turn:
            started_at = time.perf_counter()
            await asyncio.sleep(self._seconds)
            self._pace.add(time.perf_counter() - started_at)
        if self._then is not None:
            await self._then.process.remote(job)
        return Outcome(status="done", job_id=job.job_id, run_id=job.run_id, source=job.source)

    def record_autoscaling_stats(self) -> dict[str, float]:
        return self._pace.stats()


class Running:
    """The application on its cluster, as it is seen from outside."""

    def __init__(self, config: AppConfig, server: LocalAws) -> None:
        assert config.queue is not None
        assert config.ledger is not None
        self.config, self.queue, self.ledger = config, config.queue, config.ledger
        self.server = server
        # Patient, unlike the application's client, because the server must catch up with its calls.
        self.sqs = aws_client("sqs", server.aws)

    def send(self, jobs: int) -> None:
        plan = plan_run(
            [Entry(BUCKET, f"{number}.jpg") for number in range(jobs)],
            folder=RunFolder(open_store(self.config), self.ledger, new_run_id()),
            description="test",
            output=Output(bucket=BUCKET),
            recipe="cutout",
        )
        send_run(QueueClient(self.sqs, self.queue.url), plan)

    def messages(self) -> int:
        backlog = read_backlog(QueueClient(self.sqs, self.queue.url))
        return backlog.waiting + backlog.in_flight

    def replicas(self, *states: str) -> tuple[int, int]:
        """Return the replicas of the pipeline and of the segmenter."""
        deployments = serve.status().applications[APP].deployments
        pipeline, segmenter = (
            sum(deployments[name].replica_states.get(state, 0) for state in states)
            for name in ("CutoutPipeline", "Segmenter")
        )
        return pipeline, segmenter

    def wanted(self) -> tuple[int, int]:
        return self.replicas("STARTING", "RUNNING")

    def running(self) -> tuple[int, int]:
        return self.replicas("RUNNING")


def wait_for(condition: Callable[[], bool], within_s: float) -> float:
    """Return the seconds until a condition holds."""
    started_at = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - started_at
        assert waited_s < within_s, f"{condition} did not hold within {within_s} s"
        time.sleep(0.3)
    return time.monotonic() - started_at


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # Other processes cannot import this module.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    use_dummy_credentials()
    memory = 100 * 1024 * 1024
    head = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": memory}
    # The replicas inherit their environment from the raylets.
    with ray_environment():
        nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=4, object_store_memory=memory)
        ray.init(address=nodes.address, log_to_driver=False)
        serve.start(
            http_options={"host": "127.0.0.1", "port": free_port()}, proxy_location="HeadOnly"
        )
        yield
    finally:
        serve.shutdown()
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture
def app(cluster: None) -> Iterator[Running]:
    with LocalAws() as server:
        server.create_bucket(BUCKET)
        aws = {"endpoint_url": server.endpoint_url, "read_timeout_s": 2, "max_attempts": 1}
        config = AppConfig.load(
            {
                "aws": aws,
                "queue": {"url": server.create_queue("scaling"), "long_poll_s": 1},
                "ledger": {"bucket": BUCKET, "part_interval_s": 0.5},
                "pipeline": {"threads": 1},
                "segmenter": {"threads": 1},
                "autoscaling": {
                    "max_replicas": 6,
                    "drain_target_s": DRAIN_TARGET_S,
                    "upscale_delay_s": UP_S,
                    "downscale_delay_s": DOWN_S,
                    "look_back_s": 12,
                    "read_period_s": 1,
                    "away_after_s": 30,
                    # Wrong on purpose, because the replicas measure the true times.
                    "segment_s": 2 * SEGMENT_S,
                    "pixels_s": 2 * PIXELS_S,
                },
            }
        )
        assert config.queue is not None
        stand_in = serve.deployment(StandIn)
        one_cpu = {"num_cpus": 1}
        segmenter = stand_in.options(
            name="Segmenter", ray_actor_options=one_cpu, **segmenter_replicas("folio", config)
        ).bind(SEGMENT_S)
        pipeline = stand_in.options(
            name="CutoutPipeline",
            ray_actor_options=one_cpu,
            max_ongoing_requests=64,
            **pipeline_replicas(config),
        ).bind(PIXELS_S, segmenter)
        ingest = ingest_deployment(config, config.queue, pipeline)
        serve.run(ingest, name=APP, route_prefix=None)
        try:
            yield Running(config, server)
        finally:
            serve.delete(APP)


def test_a_burst_is_drained_in_time_and_an_empty_queue_shrinks(app: Running) -> None:
    assert app.running() == (1, 1)
    # A few images first, so that the replicas have measured their times.
    app.send(8)
    wait_for(lambda: app.messages() == 0, 60)
    time.sleep(12)

    app.send(JOBS)
    began = time.monotonic()
    assert wait_for(lambda: app.wanted() == (2, 4), UP_S + 15) >= UP_S - 1
    seen = set()

    def drained() -> bool:
        seen.add(app.wanted())
        return app.messages() == 0

    # For /ops, which cannot ask the controller.
    kept = {name for report in kept_reports(APP) for name, _ in report.values.gauges}
    assert DRAIN_SECONDS.name in kept
    wait_for(drained, 2 * DRAIN_TARGET_S)
    took_s = time.monotonic() - began
    print(f"drained in {took_s:.1f} s of {DRAIN_TARGET_S} s")
    assert took_s <= 1.25 * DRAIN_TARGET_S
    # While there was work, no replica was removed and none was started in vain.
    assert seen == {(2, 4)}
    wait_for(lambda: app.wanted() == (1, 1), DOWN_S + 60)


def test_the_policy_survives_an_unavailable_sqs(app: Running) -> None:
    app.send(JOBS)
    wait_for(lambda: app.running()[1] >= 4, 90)
    before = app.wanted()
    [server] = [child for child in psutil.Process().children() if "moto.server" in child.cmdline()]
    # It accepts connections and answers none, which is the worst way to be unavailable.
    server.suspend()
    try:
        time.sleep(15)
        assert app.wanted() == before
        # After away_after_s the ongoing requests decide, and there are none.
        wait_for(lambda: app.wanted() == (1, 1), 30 + DOWN_S + 60)
    finally:
        server.resume()
    assert app.messages() > JOBS // 4
    wait_for(lambda: app.wanted()[1] >= 2, UP_S + 60)
