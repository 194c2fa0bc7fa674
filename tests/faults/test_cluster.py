"""Parts of a Ray cluster die or are replaced under load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import serve

from ingest.local.application import APPLICATION
from ingest.local.aws import LocalAws
from tests.faults.outages import ingest_health
from tests.support.fault_effects import kill_caller, refuse
from tests.support.fault_proxy import Proxy
from tests.support.fault_rig import Rig
from tests.support.two_nodes import CONSUMERS, RayCluster, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

NAMES = [f"j{n:02d}" for n in range(40)]
MAX_RECEIVES = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with two_nodes() as started:
        yield started


@pytest.fixture(scope="module")
def deployed(server: LocalAws, cluster: RayCluster) -> Iterator[Rig]:
    with Proxy(server.endpoint_url) as proxy:
        rig = Rig(server, proxy, MAX_RECEIVES)
        cluster.deploy(settings(rig))
        yield rig


@pytest.fixture
def rig(deployed: Rig) -> Rig:
    deployed.begin()
    return deployed


def settings(rig: Rig, **queue: Any) -> dict[str, Any]:
    """Return settings under which every deployment has a replica on each node, if it can."""
    small = {"replicas": 2, "num_cpus": 0.5}
    args = rig.args(consumers=CONSUMERS, visibility_timeout_s=6, **queue)
    return args | {"pipeline": small, "segmenter": {**small, "threads": 1}}


async def finish(rig: Rig) -> None:
    await rig.until(lambda: len(rig.outcomes()) == len(rig.sent))
    await rig.until_settled()


async def test_a_replica_is_killed_in_inference(rig: Rig) -> None:
    rule = rig.proxy.add("s3:PutObject", kill_caller(), name="*/cutouts/*/j1?/*", times=2)
    rig.send(*NAMES)
    await finish(rig)
    assert rule.hits == 2
    outcomes = rig.check()
    assert rig.dead_letters() == {}
    assert max(item.receive_count for item in outcomes.values()) <= 2


async def test_an_image_that_kills_replicas_is_isolated(rig: Rig) -> None:
    """The receives of its message run out, and the jobs that ran next to it succeed."""
    rule = rig.proxy.add("s3:GetObject", kill_caller(), name="*/in/j20.jpg")
    rig.send(*NAMES)
    await finish(rig)
    assert rule.hits > MAX_RECEIVES
    rig.sent.remove("j20")
    outcomes = rig.check(failed={"j20": "replica_lost"})
    assert outcomes["j20"].receive_count == MAX_RECEIVES
    assert rig.dead_letters() == {"j20": "replica_lost"}


@pytest.mark.parametrize(
    ("action", "name"), [("s3:PutObject", "*.jsonl.gz"), ("sqs:DeleteMessageBatch", "*")]
)
async def test_an_ingest_actor_is_killed(
    rig: Rig, cluster: RayCluster, action: str, name: str
) -> None:
    before = cluster.replicas("SqsIngest")
    rule = rig.proxy.add(action, kill_caller(), name=name, times=1)
    rig.send(*NAMES)
    await finish(rig)
    assert rule.hits == 1
    rig.check()
    assert rig.dead_letters() == {}
    await asyncio.to_thread(cluster.until, lambda: len(cluster.replicas("SqsIngest")) == CONSUMERS)
    assert cluster.replicas("SqsIngest") != before


async def test_the_controller_is_killed(rig: Rig, cluster: RayCluster) -> None:
    rig.send(*NAMES[:20])
    await rig.until(lambda: len(rig.outcomes()) > 2)
    cluster.kill_controller()
    # The next controller finds the replicas, and replaces one that dies.
    rule = rig.proxy.add("s3:GetObject", kill_caller(), name="*/in/j3?.jpg", times=1)
    rig.send(*NAMES[20:])
    await finish(rig)
    assert rule.hits == 1
    rig.check()
    assert rig.dead_letters() == {}
    await asyncio.to_thread(cluster.until, lambda: len(cluster.replicas("CutoutPipeline")) == 2)


async def test_a_node_is_lost(rig: Rig, cluster: RayCluster) -> None:
    rig.send(*NAMES)
    await rig.until(lambda: len(rig.outcomes()) > 2)
    cluster.lose_node()
    try:
        await finish(rig)
        rig.check()
        assert rig.dead_letters() == {}
    finally:
        # Ray sets signal handlers for a node, which only the main thread can do.
        cluster.add_node()
    await asyncio.to_thread(cluster.until, lambda: len(cluster.replicas("SqsIngest")) == CONSUMERS)


async def test_a_rolling_update_under_load(rig: Rig, cluster: RayCluster) -> None:
    rig.send(*NAMES)
    await rig.until(lambda: len(rig.outcomes()) > 2)
    before = cluster.replicas("SqsIngest")
    await asyncio.to_thread(cluster.deploy, settings(rig, max_in_flight=9))
    await finish(rig)
    rig.check()
    assert rig.dead_letters() == {}
    assert cluster.replicas("SqsIngest").isdisjoint(before)


async def test_readyz_names_an_autoscaling_policy_that_may_not_read_the_queue(
    rig: Rig, cluster: RayCluster
) -> None:
    scaled = settings(rig) | {"autoscaling": {"max_replicas": 2, "read_period_s": 0.5}}
    await asyncio.to_thread(cluster.deploy, scaled)
    await rig.until(lambda: ingest_health(cluster.url)["healthy"])
    rule = rig.proxy.add("sqs:GetQueueAttributes", refuse(403, "AccessDenied"))
    await rig.until(lambda: not ingest_health(cluster.url)["healthy"])
    reason = ingest_health(cluster.url)["reason"]
    assert reason.startswith("autoscaling: Serve's controller cannot read the backlog")
    assert "GetQueueAttributes" in reason
    rig.send(*NAMES[:4])
    await finish(rig)
    rig.proxy.remove(rule)
    await rig.until(lambda: ingest_health(cluster.url)["healthy"])
    rig.check()


async def test_models_that_cannot_be_loaded_leave_the_queue_untouched(
    rig: Rig, cluster: RayCluster, tmp_path: Path
) -> None:
    """Before that, an application that is deleted under load releases all of its messages."""
    rig.send(*NAMES)
    await rig.until(lambda: len(rig.outcomes()) > 2)
    await asyncio.to_thread(cluster.delete)
    assert rig.backlog().in_flight == 0

    (tmp_path / "u2netp.onnx").write_bytes(b"not the release")
    broken = settings(rig) | {
        "models": ["missing", "u2netp", "silueta"],
        "model_files": {"missing": str(tmp_path / "missing.onnx")},
        "u2net_home": str(tmp_path),
    }
    before, received = rig.backlog(), len(rig.proxy.passed("sqs:ReceiveMessage"))
    with pytest.raises(RuntimeError):
        await asyncio.to_thread(cluster.deploy, broken)
    deployments = serve.status().applications[APPLICATION].deployments
    assert "missing.onnx is not a file" in deployments["Segmenter-missing"].message
    assert "is not rembg's release" in deployments["Segmenter-u2netp"].message
    assert "foreedge models fetch silueta" in deployments["Segmenter-silueta"].message
    assert rig.backlog() == before
    assert len(rig.proxy.passed("sqs:ReceiveMessage")) == received

    await asyncio.to_thread(cluster.deploy, settings(rig))
    await finish(rig)
    outcomes = rig.check()
    assert rig.dead_letters() == {}
    # The deletion cost one receive at most, that of the work that it interrupted.
    assert max(item.receive_count for item in outcomes.values()) <= 2
