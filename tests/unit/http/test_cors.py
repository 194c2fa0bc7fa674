"""Web pages of configured origins, negotiated answers, and errors that nobody expected."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig
from tests.support.http_client import StuckPipeline, endpoint_client
from tests.support.images import book, jpeg

SHOP = "https://shop.example"
PREFLIGHT = {
    "Origin": SHOP,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "x-api-key,content-type",
}


@pytest.mark.parametrize("origins", [[SHOP], [SHOP, "http://localhost:3000"], ["*"]])
async def test_pages_of_configured_origins_may_call(origins: list[str]) -> None:
    config = AppConfig.load({"http": {"cors_origins": origins, "api_keys": "sesame"}})
    async with endpoint_client(config, StuckPipeline()) as client:
        asked = await client.options("/v1/cutout", headers=PREFLIGHT)
        assert asked.status_code == 200, asked.text
        listed = await client.get("/v1/models", headers={"Origin": SHOP, "X-API-Key": "sesame"})
        refused = await client.post("/v1/cutout", headers={"Origin": SHOP}, content=b"x")
        assert (listed.status_code, refused.status_code) == (200, 401)
        for answer in (asked, listed, refused):
            assert answer.headers["access-control-allow-origin"] in (SHOP, "*")
            assert "access-control-allow-credentials" not in answer.headers
        assert "Foreedge-Model" in listed.headers["access-control-expose-headers"]
        assert "x-api-key" in asked.headers["access-control-allow-headers"]


@pytest.mark.parametrize("origins", [[], ["https://other.example"], ["http://shop.example"]])
async def test_pages_of_other_origins_may_not(origins: list[str]) -> None:
    config = AppConfig.load({"http": {"cors_origins": origins}})
    async with endpoint_client(config, StuckPipeline()) as client:
        asked = await client.options("/v1/cutout", headers=PREFLIGHT)
        assert asked.status_code in (400, 405)
        listed = await client.get("/v1/models", headers={"Origin": SHOP})
        jobs = await client.get("/v1/jobs/r1", headers={"Origin": SHOP})
        for answer in (asked, listed, jobs):
            assert "access-control-allow-origin" not in answer.headers


async def test_other_routes_stay_closed() -> None:
    config = AppConfig.load({"http": {"cors_origins": ["*"]}})
    async with endpoint_client(config, StuckPipeline()) as client:
        for path in ("/v1/jobs/r1", "/readyz", "/"):
            answer = await client.get(path, headers={"Origin": SHOP})
            assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["", "shop.example", "https://shop.example/", "https://*", "null", "ftp://x"]
)
def test_what_is_no_origin_is_rejected(origin: str) -> None:
    with pytest.raises(InvalidConfig, match=r"http\.cors_origins"):
        AppConfig.load({"http": {"cors_origins": [origin]}})


async def test_a_negotiated_answer_says_so(pipeline: Any) -> None:
    config = AppConfig.load({"http": {"cors_origins": [SHOP]}})
    image = jpeg(book().image)
    async with endpoint_client(config, pipeline) as client:
        options = {"min_subject_px": "0"}
        found = await client.post("/v1/cutout", content=image, params=options)
        assert found.headers["vary"] == "Accept, Origin"
        tag = {"If-None-Match": found.headers["etag"], "Origin": SHOP}
        known = await client.post("/v1/cutout", content=image, params=options, headers=tag)
        assert known.status_code == 304
        assert known.headers["vary"] == "Accept, Origin"
        refused = await client.post("/v1/cutout", content=image, headers={"Accept": "text/html"})
        assert (refused.status_code, refused.headers["vary"]) == (406, "Accept, Origin")


class _Broken(StuckPipeline):
    async def models(self) -> Any:
        return [object()]


async def test_an_error_that_nobody_expected_has_a_code() -> None:
    async with endpoint_client(AppConfig.load(), _Broken()) as client:
        answer = await client.get("/v1/models")
        assert answer.status_code == 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "internal_error"
        assert "object at 0x" not in answer.text
