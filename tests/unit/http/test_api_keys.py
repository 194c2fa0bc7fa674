"""API keys: their sources, which requests they admit, and that they never appear in a text."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingest.cli.main import app
from serve_app.config import AppConfig, AwsConfig, HttpConfig
from serve_app.errors import InvalidConfig, RateLimited
from serve_app.http.api_keys import ApiKeys, read_api_keys
from tests.support.http_client import StuckPipeline, endpoint_client

AWS = AwsConfig()
OLD, NEW = "an-old-key-0123456789", "a-new-key-9876543210"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def http(**settings: Any) -> HttpConfig:
    return AppConfig.load({"http": settings}).http


@pytest.mark.parametrize("value", [[], "", "   ", ["a", ""], "a,,b", ["two words"], ["schlüssel"]])
def test_invalid_configured_keys_are_rejected(value: object) -> None:
    with pytest.raises(InvalidConfig, match="api_keys"):
        http(api_keys=value)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "two words\n"])
def test_a_file_without_a_key_is_rejected(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(InvalidConfig, match="api_keys_file"):
        read_api_keys(http(api_keys_file=path), AWS)


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        read_api_keys(http(api_keys_file=tmp_path / "none"), AWS)


def test_foreedge_serve_checks_the_keys_before_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# none yet\n")
    answer = CliRunner().invoke(app, ["serve", "--set", f"http.api_keys_file={path}"])
    assert isinstance(answer.exception, InvalidConfig)
    assert str(path) in answer.exception.message


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, expected in (("a,b", ("a", "b")), ('["a", "b"]', ("a", "b")), ("123", ("123",))):
        monkeypatch.setenv("FOREEDGE_HTTP__API_KEYS", text)
        assert read_api_keys(AppConfig.load().http, AWS) == expected
    monkeypatch.setenv("FOREEDGE_HTTP__API_KEYS", "")
    with pytest.raises(InvalidConfig):
        AppConfig.load()


def test_keys_appear_in_no_text() -> None:
    config = AppConfig.load({"http": {"api_keys": [OLD]}})
    keys = ApiKeys(config.http, AWS)
    for shown in (
        repr(config),
        str(config),
        repr(keys),
        repr(vars(keys)),
        str(config.model_dump()),
    ):
        assert OLD not in shown
    assert OLD not in config.model_dump_json()


async def test_several_keys_are_valid_at_once() -> None:
    keys = ApiKeys(http(api_keys=[OLD, NEW]), AWS)
    assert await keys.accept([OLD])
    assert await keys.accept([NEW])
    assert await keys.accept(["wrong", NEW])
    for wrong in ([], [""], [OLD[:-1]], [OLD + " "], [OLD.upper()], ["é"]):
        assert not await keys.accept(wrong)


async def test_a_key_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock = tmp_path / "keys", Clock()
    path.write_text(f"# rotated on Mondays\n{OLD}\n")
    keys = ApiKeys(http(api_keys_file=path, api_keys_refresh_s=60), AWS, clock)
    path.write_text(f"{OLD}\n{NEW}\n")
    assert not await keys.accept([NEW])
    clock.now = 60
    assert await keys.accept([NEW])
    path.write_text(f"{NEW}\n")
    clock.now = 120
    assert not await keys.accept([OLD])
    with caplog.at_level(logging.ERROR):
        path.write_text("")
        clock.now = 180
        assert await keys.accept([NEW]), "a file that was emptied by mistake locks nobody out"
    assert "previous keys stay valid" in caplog.text
    assert NEW not in caplog.text
    path.unlink()
    clock.now = 240
    assert await keys.accept([NEW])


async def test_keys_that_cannot_be_read_soon_are_not_waited_for(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys", Clock()
    path.write_text(f"{OLD}\n")
    keys = ApiKeys(http(api_keys_file=path, api_keys_refresh_s=60), AWS, clock)
    path.unlink()
    # Nobody writes into it, so that the read does not end.
    os.mkfifo(path)
    clock.now = 60
    loop = asyncio.get_running_loop()
    try:
        assert await asyncio.wait_for(keys.accept([OLD]), 30)
        started_at = loop.time()
        for _ in range(50):
            assert await keys.accept([OLD])
            assert not await keys.accept([NEW])
        assert loop.time() - started_at < 2, "the others do not wait at all"
    finally:
        path.write_text(f"{NEW}\n")
    async with asyncio.timeout(30):
        while await keys.accept([OLD]):  # noqa: ASYNC110 - nothing says that the keys are read
            await asyncio.sleep(0.01)
    assert await keys.accept([NEW])


@pytest.fixture
def config() -> AppConfig:
    return AppConfig.load({"http": {"api_keys": [OLD, NEW]}})


async def test_routes_need_a_key(config: AppConfig) -> None:
    async with endpoint_client(config, StuckPipeline()) as client:
        for method, path in (
            ("POST", "/v1/cutout"),
            ("POST", "/v1/cutout?quality=nonsense"),
            ("GET", "/v1/models"),
            ("HEAD", "/v1/models"),
            ("POST", "/v1/jobs"),
            ("GET", "/v1/jobs/some-run"),
        ):
            answer = await client.request(method, path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert method == "HEAD" or answer.json()["code"] == "unauthenticated"
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200, path


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-API-Key": OLD}, 200),
        ({"x-api-key": NEW}, 200),
        ({"Authorization": f"Bearer {OLD}"}, 200),
        ({"Authorization": f"bearer {NEW}"}, 200),
        ({"Authorization": f"Bearer {OLD}", "X-API-Key": "wrong"}, 200),
        ({"X-API-Key": "wrong"}, 401),
        ({"X-API-Key": ""}, 401),
        ({"Authorization": f"Basic {OLD}"}, 401),
        ({"Authorization": OLD}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Bearer {OLD},{NEW}"}, 401),
    ],
)
async def test_every_way_to_present_a_key(
    config: AppConfig, headers: dict[str, str], status: int
) -> None:
    async with endpoint_client(config, StuckPipeline()) as client:
        answer = await client.get("/v1/models", headers=headers)
        assert answer.status_code == status
        assert OLD not in answer.text


async def test_without_a_key_the_body_is_not_read(config: AppConfig) -> None:
    read = 0

    async def body() -> Any:
        nonlocal read
        for _ in range(100):
            read += 1
            yield bytes(1024)
            await asyncio.sleep(0)

    async with endpoint_client(config, StuckPipeline()) as client:
        assert (await client.post("/v1/cutout", content=body())).status_code == 401
    assert read == 0


async def test_an_endpoint_without_keys_is_open_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    assert "FOREEDGE_HTTP__API_KEYS" not in os.environ
    with caplog.at_level(logging.WARNING):
        async with endpoint_client(AppConfig.load(), StuckPipeline()) as client:
            assert (await client.get("/v1/models")).status_code == 200
    assert "open to everybody" in caplog.text


# --- names and rates ---


async def test_a_key_may_have_a_name(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"shop:{OLD}\n# rotated\nshop:{NEW}\nwithout-a-name\n")
    keys = ApiKeys(http(api_keys_file=path, api_keys="editor.2:its:key"), AWS)
    for presented, name in (
        (OLD, "shop"),
        (NEW, "shop"),
        ("without-a-name", None),
        ("its:key", "editor.2"),
        # What was a key before there were names.
        (f"shop:{OLD}", "shop"),
    ):
        accepted = await keys.accept([presented])
        assert accepted is not None
        assert accepted.name == name
    for wrong in ("shop", "shop:", "editor.2", "key", ""):
        assert await keys.accept([wrong]) is None


async def test_each_key_has_its_own_rate() -> None:
    clock = Clock()
    settings = http(
        api_keys=["shop:a", "shop:b", "editor:c", "d", "e"],
        requests_per_minute={"shop": 3, "*": 2},
    )
    keys = ApiKeys(settings, AWS, clock)

    async def count(key: str) -> None:
        accepted = await keys.accept([key])
        assert accepted is not None
        keys.count_request(accepted)

    # Keys of one name count together.
    for key in ("a", "b", "a", "c", "c", "d", "d", "e"):
        await count(key)
    for key, name in (("a", "'shop'"), ("b", "'shop'"), ("c", "'editor'"), ("d", "This API key")):
        with pytest.raises(RateLimited, match=name) as caught:
            await count(key)
        assert caught.value.retry_after_s == (20 if name == "'shop'" else 30)
    await count("e")
    clock.now = 20
    await count("b")
    with pytest.raises(RateLimited):
        await count("a")
    # No more than a minute's requests are saved up.
    clock.now = 10_000
    for _ in range(3):
        await count("a")
    with pytest.raises(RateLimited):
        await count("a")


async def test_keys_without_a_limit_are_not_limited() -> None:
    keys = ApiKeys(http(api_keys=["shop:a", "b"], requests_per_minute={"shop": 1}), AWS)
    accepted = await keys.accept(["b"])
    assert accepted is not None
    for _ in range(100):
        keys.count_request(accepted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"requests_per_minute": {"*": 1}}, "none are configured"),
        ({"api_keys": ["a"], "requests_per_minute": {"*": 0}}, "http.requests_per_minute"),
        ({"api_keys": ["a"], "requests_per_minute": {"shop": 1}}, "names shop"),
    ],
)
def test_limits_that_cannot_work_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        ApiKeys(http(**settings), AWS)


def test_a_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREEDGE_HTTP__API_KEYS", "shop:a")
    monkeypatch.setenv("FOREEDGE_HTTP__REQUESTS_PER_MINUTE__SHOP", "5")
    assert AppConfig.load().http.requests_per_minute == {"shop": 5}


async def test_a_request_over_the_limit_is_answered_with_429_and_logs_name_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    config = AppConfig.load(
        {"http": {"api_keys": f"shop:{OLD}", "requests_per_minute": {"shop": 2}}}
    )
    async with endpoint_client(config, StuckPipeline()) as client:
        for _ in range(2):
            answer = await client.get("/v1/models", headers={"X-API-Key": OLD})
            assert answer.status_code == 200
        answer = await client.get("/v1/models", headers={"Authorization": f"Bearer {OLD}"})
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert answer.headers["retry-after"] == "30"
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/v1/models", headers={"X-API-Key": "x"})).status_code == 401
    assert "API key shop: GET /v1/models" in caplog.text
    assert OLD not in caplog.text
    assert OLD not in answer.text
