"""``POST /v1/catalog/retry-queue-failed``: the four counts of the application's own endpoint."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any, cast

from ingest.catalog.retry import CatalogRetry
from serve_app.config import HttpConfig
from serve_app.http.endpoint import Endpoint
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection
from tests.catalog.sweeping import add_books, blocked_job, received
from tests.support.fault_effects import refuse
from tests.support.fault_proxy import Proxy
from tests.support.http_client import EndpointClient, NoQueue

PATH = "/v1/catalog/retry-queue-failed"
KEY = "k" * 32


def retry_of(bench: Bench, endpoint_url: str | None = None) -> CatalogRetry:
    config = bench.config
    assert config.catalog is not None
    aws = config.aws.model_copy(update={"endpoint_url": endpoint_url or bench.aws.endpoint_url})
    # As it reaches a replica.
    made: CatalogRetry = pickle.loads(pickle.dumps(CatalogRetry(config.catalog, bench.url, aws)))
    return made


def client_of(bench: Bench, retry: CatalogRetry | None) -> EndpointClient:
    config = bench.config.model_copy(
        update={"http": HttpConfig.model_validate({"api_keys": [KEY]})}
    )
    endpoint = Endpoint(config, cast(Any, None), None, NoQueue(), queue_failed=retry)
    return EndpointClient(endpoint)


async def post(bench: Bench, retry: CatalogRetry | None) -> Any:
    async with client_of(bench, retry) as client:
        answer = await client.post(PATH, headers={"x-api-key": KEY})
    return {"status": answer.status_code, **answer.json()}


async def test_the_counts_and_the_rows(bench: Bench, collection: Collection) -> None:
    blocked, _ = blocked_job(collection)
    jobs = add_books(collection, 60)
    retry = retry_of(bench)
    assert await post(bench, retry) == {
        "status": 200,
        "retried": 50,
        "succeeded": 50,
        "still_failing": 0,
        "permanently_failed": 0,
    }
    # The oldest ones, and the row of an image with another active job among them.
    assert sorted(body["job_id"] for body in received(bench)) == sorted(jobs[:49])
    [row] = collection.rows("SELECT * FROM image_processing_jobs WHERE id = %s", blocked)
    assert row["status"] == "failed"
    assert (await post(bench, retry))["succeeded"] == 11
    assert (await post(bench, retry))["retried"] == 0


async def test_lost_jobs_are_left_to_the_sweep(bench: Bench, collection: Collection) -> None:
    add_books(collection, 1, "pending")
    collection.execute("UPDATE image_processing_jobs SET updated_at = now() - interval '9 days'")
    assert (await post(bench, retry_of(bench)))["retried"] == 0
    assert received(bench) == []


async def test_an_outage_of_sqs_is_counted_and_makes_no_job_permanently_failed(
    bench: Bench, collection: Collection
) -> None:
    add_books(collection, 5)
    with Proxy(bench.aws.endpoint_url) as proxy:
        proxy.add("sqs:SendMessageBatch", refuse(503, "ServiceUnavailable"))
        retry = retry_of(bench, proxy.endpoint_url)
        for _ in range(4):
            counts = await post(bench, retry)
            assert counts["still_failing"] == counts["retried"] > 0
    rows = collection.rows("SELECT status, queue_retry_count FROM image_processing_jobs")
    assert {(row["status"], row["queue_retry_count"]) for row in rows} == {("queue_failed", 0)}


async def test_without_a_key_or_a_catalog_nothing_is_sent(
    bench: Bench, collection: Collection
) -> None:
    add_books(collection, 1)
    async with client_of(bench, retry_of(bench)) as client:
        assert (await client.post(PATH)).status_code == 401
    answer = await post(bench, None)
    assert (answer["status"], answer["code"]) == (503, "database_unavailable")
    assert "No catalog is configured" in answer["detail"]
    assert received(bench) == []


def test_an_application_without_a_catalog_imports_no_database() -> None:
    code = (
        "import sys; from serve_app.app import build; build({'queue': {'url': 'https://q/1/q'},"
        " 'ledger': {'bucket': 'ledger'}}); assert 'sqlalchemy' not in sys.modules;"
        " assert 'psycopg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
