"""What ``/readyz`` says about the ingest, and to whom."""

from __future__ import annotations

from typing import Any

import pytest
from ray.exceptions import ActorUnschedulableError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from serve_app.config import AppConfig
from serve_app.errors import ReplicaLost
from serve_app.http.endpoint import Endpoint
from serve_app.http.ingest_health import summarize_replicas
from tests.support.http_client import (
    EndpointClient,
    LocalHandle,
    NoQueue,
    RemoteMethod,
    StuckPipeline,
)

KEY = "a-key-of-more-than-16-characters"
WELL = {"queue_url": "u", "healthy": True, "reason": None, "done": 3, "failed": {"no_subject": 1}}
ILL = {
    "queue_url": "u",
    "healthy": False,
    "reason": "output s3://o: denied",
    "done": 2,
    "failed": {},
}


class Replicas:
    """A handle to several replicas of SqsIngest, which answer or fail."""

    def __init__(self, *answers: Any, known: bool = True) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.known = known
        """Whether the handle knows the replicas. It does once a call has waited for one."""

    def broadcast(self, method: str) -> Replicas:
        self.asked.append(method)
        return self

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        assert return_exceptions
        if not self.known:
            raise DeploymentUnavailableError(DeploymentID("SqsIngest", "foreedge"))
        if self.answers == ["silence"]:
            raise TimeoutError("no replica answered")
        return self.answers

    @property
    def status(self) -> RemoteMethod:
        return RemoteMethod(self._wait_for_one)

    async def _wait_for_one(self) -> Any:
        self.known = bool(self.answers)
        if not self.known:
            raise ActorUnschedulableError("no node has room for it")
        return self.answers[0]


def client_of(config: AppConfig, replicas: Replicas) -> EndpointClient:
    pipeline: Any = LocalHandle(StuckPipeline())
    ingest: Any = replicas
    return EndpointClient(Endpoint(config, pipeline, ingest, NoQueue()))


def test_all_replicas_count_and_not_one_of_them() -> None:
    found = summarize_replicas([WELL, ILL, WELL])
    assert (found["healthy"], found["reason"]) == (False, "output s3://o: denied")
    assert (found["queue_url"], found["done"], found["failed"]) == ("u", 8, {"no_subject": 2})
    assert found["replicas"] == [WELL, ILL, WELL]
    assert summarize_replicas([WELL, WELL])["healthy"]


def test_a_replica_that_does_not_answer_is_not_healthy() -> None:
    found = summarize_replicas([WELL, ReplicaLost("gone")])
    assert not found["healthy"]
    assert "gone" in found["reason"]
    assert found["done"] == 3
    assert summarize_replicas([])["reason"] == "no replica of SqsIngest is running"


async def test_readyz_tells_of_every_replica() -> None:
    replicas = Replicas(WELL, ILL)
    async with client_of(AppConfig.load(), replicas) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["ingest"]["reason"] == "output s3://o: denied"
    assert replicas.asked == ["status"]


async def test_a_handle_that_does_not_know_the_replicas_yet_waits_for_them() -> None:
    replicas = Replicas(WELL, ILL, known=False)
    async with client_of(AppConfig.load(), replicas) as client:
        found = (await client.get("/readyz")).json()["ingest"]
    assert found["replicas"] == [WELL, ILL]
    assert replicas.asked == ["status", "status"]


async def test_an_ingest_that_has_no_replica_says_why() -> None:
    async with client_of(AppConfig.load(), Replicas(known=False)) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert "no node has room for it" in answer.json()["ingest"]["reason"]


async def test_an_ingest_that_does_not_answer_takes_nothing_out_of_service() -> None:
    async with client_of(AppConfig.load(), Replicas("silence")) as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert not answer.json()["ingest"]["healthy"]


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, False),
        ({"X-API-Key": "wrong"}, False),
        ({"Authorization": f"Basic {KEY}"}, False),
        ({"X-API-Key": KEY}, True),
        ({"Authorization": f"Bearer {KEY}"}, True),
    ],
)
async def test_strangers_learn_nothing_about_the_queue(headers: dict[str, str], told: bool) -> None:
    config = AppConfig.load({"http": {"api_keys": KEY}})
    async with client_of(config, Replicas(WELL)) as client:
        answer = await client.get("/readyz", headers=headers)
    assert answer.status_code == 200
    assert ("ingest" in answer.json()) == told


def test_the_catalog_of_the_first_replica_stands_for_all() -> None:
    catalog = {"reason": None, "latency_ms": 1.5, "jobs": {"pending": 3}, "stale": 0}
    found = summarize_replicas([WELL | {"catalog": catalog}, WELL | {"catalog": catalog}])
    assert found["catalog"] == catalog
    assert "catalog" not in summarize_replicas([WELL])


def test_boundaries_of_all_replicas_are_merged() -> None:
    def boundaries(**reasons: str | None) -> dict[str, Any]:
        return {"boundaries": [{"name": name, "reason": why} for name, why in reasons.items()]}

    found = summarize_replicas(
        [
            WELL | boundaries(queue=None, source=None),
            ILL | boundaries(queue=None, source="denied"),
            ILL | boundaries(queue=None, source="unavailable", settings="wrong"),
            ReplicaLost("gone"),
        ]
    )
    assert found["boundaries"] == [
        {"name": "queue", "reason": None, "consumers": 0},
        {"name": "source", "reason": "denied", "consumers": 2},
        {"name": "settings", "reason": "wrong", "consumers": 1},
    ]
