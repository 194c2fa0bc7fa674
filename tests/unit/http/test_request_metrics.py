"""What the endpoint records of its requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from serve_app.config import AppConfig
from serve_app.errors import InternalError
from serve_app.http.endpoint import Endpoint
from serve_app.pipeline.deployment import CutoutPipeline
from serve_app.serving.metrics import HTTP_REFUSALS, HTTP_REQUEST_SECONDS, HTTP_REQUESTS, IMAGES
from tests.support.http_client import (
    EndpointClient,
    LocalHandle,
    NoQueue,
    StuckPipeline,
    wait_until,
)
from tests.support.images import book, jpeg
from tests.support.recorded_metrics import RecordedMetrics

BOOK = jpeg(book().image)
ROUTE = "/v1/cutout"
UNKNOWN = {"recipe": "nothing"}


class Broken:
    """A pipeline with a defect."""

    async def cut_out(self, *args: Any) -> Any:
        raise InternalError("a defect")

    async def models(self) -> Any:
        raise RuntimeError("a defect that no route expects")


@asynccontextmanager
async def recorded(
    pipeline: Any, **http: Any
) -> AsyncIterator[tuple[EndpointClient, RecordedMetrics]]:
    metrics = RecordedMetrics()
    handle: Any = LocalHandle(pipeline)
    config = AppConfig.load({"http": http})
    endpoint = Endpoint(config, handle, None, NoQueue(), metrics)
    async with EndpointClient(endpoint, params={"min_subject_px": "1"}) as client:
        yield client, metrics


async def test_each_request_is_recorded_by_route_status_and_code(pipeline: CutoutPipeline) -> None:
    async with recorded(pipeline) as (client, metrics):
        assert (await client.post(ROUTE, content=BOOK)).status_code == 200
        assert (await client.post(ROUTE, content=b"no image")).status_code == 415
        assert (await client.post(ROUTE, params=UNKNOWN, content=BOOK)).status_code == 400
        assert (await client.get("/nowhere/42")).status_code == 404
        assert (await client.get("/v1/jobs/some-run")).status_code == 404
        posted = await client.post("/v1/jobs", json={"source": {"bucket": "b", "key": "k"}})
        assert posted.status_code >= 400
    assert metrics.counts(HTTP_REQUESTS) == {
        (ROUTE, "200", ""): 1,
        (ROUTE, "415", "unsupported_format"): 1,
        (ROUTE, "400", "invalid_recipe"): 1,
        ("none", "404", ""): 1,
        ("/v1/jobs/{run_id}", "404", "source_not_found"): 1,
        ("/v1/jobs", str(posted.status_code), posted.json()["code"]): 1,
    }
    assert len(metrics.observed(HTTP_REQUEST_SECONDS)[(ROUTE,)]) == 3
    model = AppConfig.load().models[0]
    assert metrics.counts(IMAGES)[("http", "done", "", model)] == 1
    assert metrics.counts(HTTP_REFUSALS) == {}


async def test_a_failure_of_the_pipeline_is_an_image_that_failed() -> None:
    async with recorded(Broken()) as (client, metrics):
        assert (await client.post("/api/remove", files={"file": BOOK})).status_code == 500
        assert (await client.post(ROUTE, content=BOOK)).status_code == 500
    assert metrics.counts(IMAGES) == {("http", "failed", "internal_error", ""): 1}
    # The second failed before its image was sent to the pipeline.
    assert metrics.counts(HTTP_REQUESTS) == {
        ("/api/remove", "500", "internal_error"): 1,
        (ROUTE, "500", "internal_error"): 1,
    }


async def test_refusals_name_the_limit_and_the_key() -> None:
    keys = {"api_keys": ["shop:secret-of-the-shop"], "max_concurrent": 1}
    limits = {"requests_per_minute": {"shop": 3}, **keys}
    stuck = StuckPipeline()
    async with recorded(stuck, **limits) as (client, metrics):
        header = {"X-API-Key": "secret-of-the-shop"}
        assert (await client.post(ROUTE, content=BOOK)).status_code == 401
        first = asyncio.create_task(client.post(ROUTE, content=BOOK, headers=header))
        await wait_until(lambda: stuck.begun == 1)
        assert (await client.post(ROUTE, content=BOOK, headers=header)).status_code == 503
        assert (await client.post(ROUTE, content=BOOK, headers=header)).status_code == 503
        assert (await client.post(ROUTE, content=BOOK, headers=header)).status_code == 429
        first.cancel()
        await asyncio.wait({first})
    assert metrics.counts(HTTP_REFUSALS) == {
        ("unauthenticated", "", ""): 1,
        ("overloaded", "http.max_concurrent", "shop"): 2,
        ("rate_limited", "http.requests_per_minute", "shop"): 1,
    }
    assert metrics.counts(IMAGES) == {("http", "failed", "cancelled", ""): 1}


@pytest.mark.parametrize("names", [60])
async def test_the_names_of_keys_are_bounded(names: int) -> None:
    keys = [f"client{number}:secret-{number:04d}" for number in range(names)]
    rates = {"requests_per_minute": {"*": 1}, "api_keys": keys}
    async with recorded(StuckPipeline(), **rates) as (client, metrics):
        for key in keys:
            header = {"X-API-Key": key}
            await client.post(ROUTE, params=UNKNOWN, content=BOOK, headers=header)
            again = await client.post(ROUTE, params=UNKNOWN, content=BOOK, headers=header)
            assert again.status_code == 429
    refusals = metrics.counts(HTTP_REFUSALS)
    assert sum(refusals.values()) == names
    assert len(refusals) == 51
    assert refusals[("rate_limited", "http.requests_per_minute", "other")] == names - 50
