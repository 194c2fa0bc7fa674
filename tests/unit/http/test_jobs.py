"""POST /v1/jobs and GET /v1/jobs/{run_id}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.runs.submissions import SqsJobs
from serve_app.config import AppConfig
from serve_app.contracts.submission import Receipt, RunCounts
from tests.support.http_client import NoQueue, StuckPipeline, endpoint_client

CONFIG = AppConfig.load()


class RecordingQueue(NoQueue):
    """A queue that accepts every job except ``"bad"``."""

    def __init__(self) -> None:
        self.contents: list[Any] = []

    async def submit(self, contents: list[Any]) -> list[Receipt]:
        self.contents += contents
        return [
            Receipt(status="refused", code="invalid_message", detail="bad", retry="permanent")
            if content == "bad"
            else Receipt(status="queued", job_id="j", run_id="r")
            for content in contents
        ]

    async def counts(self, run_id: str) -> RunCounts:
        counts = {"done": 1, "skipped_existing": 0, "failed": 0}
        return RunCounts(run_id=run_id, jobs=2, counts=counts, remaining=1, codes={}, complete=True)


async def test_every_job_is_reported() -> None:
    queue = RecordingQueue()
    async with endpoint_client(CONFIG, StuckPipeline(), queue) as client:
        answer = await client.post("/v1/jobs", json=[{"source": 1}, "bad", {"source": 2}])
        assert answer.status_code == 202
        content = answer.json()
        assert [job["status"] for job in content["jobs"]] == ["queued", "refused", "queued"]
        assert (content["run_id"], content["queued"], content["refused"]) == ("r", 2, 1)
        one = await client.post("/v1/jobs", json={"source": 3})
        assert (one.status_code, one.json()["queued"]) == (202, 1)
        none = await client.post("/v1/jobs", json=["bad", "bad"])
        assert (none.status_code, none.json()["code"]) == (400, "invalid_message")
        assert len(none.json()["jobs"]) == 2
        assert (await client.get("/v1/jobs/some-run")).json()["remaining"] == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_request"),
        (b"{", 400, "invalid_request"),
        (b'"\xff"', 400, "invalid_request"),
        (b"[]", 400, "invalid_message"),
        (b"3", 400, "invalid_message"),
        (b"[" + b"1," * 1000 + b"1]", 400, "invalid_message"),
        (b"[" * 5000, 400, "invalid_request"),
        # Parsing it would hold the event loop for half a second.
        (b"[" + b"{}," * 1_390_000 + b"{}]", 400, "invalid_request"),
        (b" " * (4 * 1024 * 1024 + 1), 413, "request_too_large"),
    ],
)
async def test_a_body_that_is_not_jobs_is_rejected(body: bytes, status: int, code: str) -> None:
    async with endpoint_client(CONFIG, StuckPipeline(), RecordingQueue()) as client:
        answer = await client.post("/v1/jobs", content=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_an_sns_envelope_is_an_invalid_job(tmp_path: Path) -> None:
    settings = {
        "storage": {"local_root": str(tmp_path)},
        "ledger": {"bucket": "b"},
        "queue": {"url": "http://localhost/queue"},
    }
    config = AppConfig.load(settings)
    envelope = {
        "TopicArn": "arn:aws:sns:eu-west-1:1:t",
        "Message": '{"Records": []}',
        "source": {"bucket": "b", "key": "k"},
        "output": {"bucket": "b"},
    }
    async with endpoint_client(config, StuckPipeline(), SqsJobs(config)) as client:
        answer = await client.post("/v1/jobs", json=envelope)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_message")
        answer = await client.post("/v1/jobs", json=[envelope, envelope])
        assert [item["code"] for item in answer.json()["jobs"]] == ["invalid_message"] * 2


async def test_without_a_queue_jobs_are_unavailable() -> None:
    async with endpoint_client(CONFIG, StuckPipeline()) as client:
        answer = await client.post("/v1/jobs", json={"source": {"bucket": "b", "key": "k"}})
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        assert "retry-after" in answer.headers
        assert (await client.get("/v1/jobs/none")).status_code == 404
        assert (await client.get("/v1/jobs/a%20b")).json()["code"] == "invalid_request"
