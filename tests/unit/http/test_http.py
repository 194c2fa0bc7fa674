"""The routes, in this process: the real pipeline and model, or one that is stuck."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from PIL import Image

from serve_app.config import AppConfig
from serve_app.contracts.submission import Receipt, RunCounts
from serve_app.errors import leaves
from serve_app.http.deployment import make_api
from serve_app.http.docs_page import render_docs_page
from serve_app.http.openapi import list_operations
from serve_app.pipeline.deployment import CutoutPipeline
from tests.support.http_client import NoQueue, StuckPipeline, client_of, pipeline_of
from tests.support.images import book, defects, jpeg

CONFIG = AppConfig.load()
BOOK = jpeg(book().image)
ANY_SIZE = {"min_subject_px": "1"}


@pytest.fixture(scope="module")
def pipeline() -> CutoutPipeline:
    return pipeline_of(CONFIG)


@pytest.fixture
async def client(pipeline: CutoutPipeline) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(CONFIG, pipeline, params=ANY_SIZE) as client:
        yield client


def limited(**settings: Any) -> AppConfig:
    return AppConfig.load({"http": settings, "limits": {"max_bytes": 100_000}})


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it is told by nobody
            await asyncio.sleep(0.005)


# --- one image ---


async def test_an_answer_tells_about_itself(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/cutout", content=BOOK)
    assert answer.status_code == 200, answer.text
    assert Image.open(io.BytesIO(answer.content)).mode == "RGBA"
    headers = answer.headers
    assert headers["foreedge-model"] == "folio"
    assert 0 <= float(headers["foreedge-mask-confidence"]) <= 1
    left, top, right, bottom = map(int, headers["foreedge-subject"].split(","))
    assert 0 <= left < right <= 400
    assert 0 <= top < bottom <= 300
    assert headers["etag"] == f'"{headers["foreedge-fingerprint"]}"'
    stages = [item.split(";dur=") for item in headers["server-timing"].split(", ")]
    expected = ["decode", "resize", "segment", "mask", "compose", "encode"]
    assert [name for name, _ in stages] == expected
    assert all(float(ms) >= 0 for _, ms in stages)


async def test_ways_to_send_the_same_thing(client: httpx.AsyncClient) -> None:
    recipe = {"background": "#336699", "format": "webp", "checks": {"min_subject_px": 1}}
    text = json.dumps(recipe)
    options = {"background": "#336699", "format": "webp"}
    picture = ("book.jpg", BOOK, "image/jpeg")

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(BOOK), 1000):
            yield BOOK[start : start + 1000]

    ways: list[dict[str, Any]] = [
        {"content": BOOK, "params": options},
        {"content": BOOK, "params": {"recipe": text}},
        {"content": chunks(), "params": options},
        {"content": BOOK, "params": options, "headers": {"content-type": "text/plain"}},
        {"files": {"file": picture}, "data": options},
        {"files": {"anything": picture}, "params": options},
        {"files": {"file": picture}, "data": {"recipe": text}},
        {"files": {"file": picture, "recipe": (None, text, "application/json")}},
        {"files": {"file": picture, "recipe": ("recipe.json", text, "application/json")}},
        {"files": {"file": picture}, "data": options, "params": {"background": "black"}},
    ]
    answers = [
        await client.post("/v1/cutout", **{**way, "params": ANY_SIZE | way.get("params", {})})
        for way in ways
    ]
    for way, answer in zip(ways, answers, strict=True):
        assert answer.status_code == 200, (way, answer.text)
        assert answer.headers["etag"] == answers[0].headers["etag"], way
        assert answer.content == answers[0].content, way


async def test_conditional_requests(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/cutout", content=BOOK)
    tag = first.headers["etag"]
    for header in (tag, f"W/{tag}", f'"other", {tag}'):
        answer = await client.post("/v1/cutout", content=BOOK, headers={"if-none-match": header})
        assert (answer.status_code, answer.content) == (304, b""), header
        assert answer.headers["etag"] == tag
    for header in ('"other"', tag.strip('"'), "*"):
        answer = await client.post("/v1/cutout", content=BOOK, headers={"if-none-match": header})
        assert answer.status_code == 200, header
    for changed in ({"format": "webp"}, {"crop_to_subject": "true"}):
        other = await client.post("/v1/cutout", content=BOOK, params=ANY_SIZE | changed)
        assert other.headers["etag"] != tag
    other = await client.post("/v1/cutout", content=jpeg(book(8).image))
    assert other.headers["etag"] != tag


async def test_a_304_costs_no_inference() -> None:
    real = pipeline_of(CONFIG)

    class Known(StuckPipeline):
        async def models(self) -> Any:
            return await real.models()

    async with client_of(CONFIG, real, params=ANY_SIZE) as client:
        tag = (await client.post("/v1/cutout", content=BOOK)).headers["etag"]
    stuck = Known()
    async with client_of(CONFIG, stuck, params=ANY_SIZE) as client:
        answer = await client.post("/v1/cutout", content=BOOK, headers={"if-none-match": tag})
        assert answer.status_code == 304
        assert stuck.begun == 0


async def test_head(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz", "/v1/models", "/docs", "/openapi.json"):
        head, get = await client.head(path), await client.get(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == get.headers["content-type"]
    head = await client.head("/v1/cutout")
    assert (head.status_code, head.content) == (405, b"")


async def test_what_the_client_accepts(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/cutout", content=BOOK, headers={"accept": "image/webp;q=0.4, image/jpeg;q=0.6"}
    )
    assert answer.headers["content-type"] == "image/jpeg"
    refused = await client.post("/v1/cutout", content=BOOK, headers={"accept": "text/html"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")


# --- what is wrong with a request ---


async def test_defects(client: httpx.AsyncClient) -> None:
    for defect in defects():
        answer = await client.post("/v1/cutout", content=defect.data)
        assert (answer.status_code, answer.json()["code"]) == (defect.status, defect.code)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ({"content": BOOK, "params": {"quality": "0"}}, 400, "invalid_recipe"),
        ({"content": BOOK, "params": {"colour": "red"}}, 400, "invalid_recipe"),
        ({"content": BOOK, "params": {"models": "u2net"}}, 400, "unknown_model"),
        ({"content": BOOK, "headers": {"x-request-timeout-seconds": "0"}}, 400, "invalid_request"),
        ({"content": BOOK, "headers": {"x-request-timeout-seconds": "x"}}, 400, "invalid_request"),
        ({"content": BOOK, "headers": {"x-request-timeout-seconds": "inf"}}, 400, None),
        ({"content": b""}, 422, "empty_image"),
        ({"files": {"file": ("a", b"")}}, 422, "empty_image"),
        ({"files": {"note": (None, "text")}}, 415, "unsupported_format"),
        ({"files": [("file", ("a", BOOK)), ("file", ("b", BOOK))]}, 415, "unsupported_format"),
        ({"files": [("f", (str(i), BOOK)) for i in range(3)]}, 400, "invalid_request"),
        ({"files": {"file": ("a", BOOK), "colour": (None, "red")}}, 400, "invalid_recipe"),
        ({"files": {"file": ("a", BOOK), "recipe": ("r", b"\xff{")}}, 400, "invalid_request"),
        ({"files": {"file": ("a", BOOK), "recipe": ("r", bytes(70_000))}}, 400, "invalid_recipe"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, None),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}},
            400,
            "invalid_request",
        ),
        (
            {
                "content": b'--y\r\nContent-Disposition: form-data; name="a"\r\n\r\nv\r\n--y--\r\n',
                "headers": {"content-type": "multipart/form-data; boundary=y; charset=none"},
            },
            415,
            "unsupported_format",
        ),
    ],
)
async def test_requests_that_cannot_be(
    client: httpx.AsyncClient, request_: dict[str, Any], status: int, code: str | None
) -> None:
    answer = await client.post("/v1/cutout", **request_)
    assert (answer.status_code, answer.json()["code"]) == (status, code or "invalid_request")
    assert (await client.post("/v1/cutout", content=BOOK)).status_code == 200


async def test_the_byte_limit_holds_while_the_body_arrives() -> None:
    config, stuck = limited(), StuckPipeline()
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10_000
            yield bytes(10_000)

    async def form() -> AsyncIterator[bytes]:
        yield b'--y\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        async for chunk in endless():
            yield chunk

    async with client_of(config, stuck) as client:
        answer = await client.post("/v1/cutout", content=endless())
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
        assert sent <= 120_000
        sent = 0
        form_type = {"content-type": "multipart/form-data; boundary=y"}
        answer = await client.post("/v1/cutout", content=form(), headers=form_type)
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
        assert sent <= 300_000
        # A form may be longer than its image; the image may not.
        answer = await client.post("/v1/cutout", files={"file": ("a", bytes(100_001))})
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
        endpoint: Any = client
        assert endpoint.endpoint.buffer.reserved == 0
    assert stuck.begun == 0


# --- too much of it ---


async def test_past_the_limit_of_images_it_refuses_at_once_and_reads_nothing() -> None:
    stuck, config = StuckPipeline(), limited(max_concurrent=1)
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield BOOK

    async with client_of(config, stuck) as client:
        first = asyncio.create_task(client.post("/v1/cutout", content=BOOK))
        await until(lambda: stuck.begun == 1)
        refused = await client.post("/v1/cutout", content=body())
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.json()["retry"] == "transient"
        assert int(refused.headers["retry-after"]) >= 1
        assert read == 0
        assert (await client.get("/readyz")).status_code == 200
        stuck.release.set()
        assert (await first).json()["detail"] == "released"
        again = await client.post("/v1/cutout", content=BOOK)
        assert again.json()["detail"] == "released"


async def test_clients_that_send_slowly_take_no_places_of_images() -> None:
    stuck, config = StuckPipeline(), limited(max_concurrent=2, max_uploads=3)
    stuck.release.set()
    go_on = asyncio.Event()
    waiting = 0

    async def slow() -> AsyncIterator[bytes]:
        nonlocal waiting
        yield BOOK[:100]
        waiting += 1
        await go_on.wait()
        yield BOOK[100:]

    async with client_of(config, stuck) as client:
        slow_ones = [
            asyncio.create_task(client.post("/v1/cutout", content=slow())) for _ in range(2)
        ]
        await until(lambda: waiting == 2)
        assert (await client.post("/v1/cutout", content=BOOK)).json()["detail"] == "released"
        slow_ones.append(asyncio.create_task(client.post("/v1/cutout", content=slow())))
        await until(lambda: waiting == 3)
        refused = await client.post("/v1/cutout", content=BOOK)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert "max_uploads" in refused.json()["detail"]
        slow_ones.pop().cancel()
        go_on.set()
        for answer in await asyncio.gather(*slow_ones):
            assert answer.json()["detail"] == "released"


async def test_past_the_limit_of_bytes_it_refuses() -> None:
    stuck, config = StuckPipeline(), limited(max_buffered_bytes=100_000)
    async with client_of(config, stuck) as client:
        first = asyncio.create_task(client.post("/v1/cutout", content=bytes(60_000)))
        await until(lambda: stuck.begun == 1)
        refused = await client.post("/v1/cutout", content=bytes(60_000))
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        stuck.release.set()
        await first
        again = await client.post("/v1/cutout", content=bytes(60_000))
        assert again.json()["detail"] == "released"


async def test_a_deadline_cancels_what_was_begun_and_nothing_else() -> None:
    stuck = StuckPipeline()
    async with client_of(limited(request_timeout_s=30), stuck) as client:
        other = asyncio.create_task(client.post("/v1/cutout", content=BOOK))
        await until(lambda: stuck.begun == 1)
        asked = {"x-request-timeout-seconds": "0.05"}
        answer = await client.post("/v1/cutout", content=BOOK, headers=asked)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        assert "0.05 s" in answer.json()["detail"]
        await until(lambda: stuck.cancelled == 1)
        stuck.release.set()
        assert (await other).json()["detail"] == "released"
        assert stuck.cancelled == 1


async def test_a_client_cannot_ask_for_more_time_than_there_is() -> None:
    stuck = StuckPipeline()
    async with client_of(limited(request_timeout_s=0.05), stuck) as client:
        asked = {"x-request-timeout-seconds": "1000"}
        answer = await client.post("/v1/cutout", content=BOOK, headers=asked)
        assert answer.status_code == 504
        assert "0.05 s" in answer.json()["detail"]


async def test_half_a_body_ends_with_the_deadline() -> None:
    async def half() -> AsyncIterator[bytes]:
        yield BOOK[:100]
        await asyncio.sleep(60)

    stuck = StuckPipeline()
    async with client_of(limited(max_uploads=1), stuck) as client:
        asked = {"x-request-timeout-seconds": "0.05"}
        answer = await client.post("/v1/cutout", content=half(), headers=asked)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        stuck.release.set()
        assert (await client.post("/v1/cutout", content=BOOK)).json()["detail"] == "released"


async def test_a_client_that_goes_away_frees_its_place() -> None:
    stuck = StuckPipeline()
    async with client_of(limited(max_concurrent=1), stuck) as client:
        gone = asyncio.create_task(client.post("/v1/cutout", content=BOOK))
        await until(lambda: stuck.begun == 1)
        gone.cancel()
        await until(lambda: stuck.cancelled == 1)
        stuck.release.set()
        assert (await client.post("/v1/cutout", content=BOOK)).json()["detail"] == "released"


# --- jobs ---


class Recorded(NoQueue):
    """A queue that takes all jobs but those whose source is ``bad``."""

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


async def test_jobs_are_reported_one_by_one() -> None:
    queue = Recorded()
    async with client_of(CONFIG, StuckPipeline(), queue) as client:
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
        (b" " * (4 * 1024 * 1024 + 1), 413, "request_too_large"),
    ],
)
async def test_bodies_that_are_no_jobs(body: bytes, status: int, code: str) -> None:
    async with client_of(CONFIG, StuckPipeline(), Recorded()) as client:
        answer = await client.post("/v1/jobs", content=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_jobs_without_a_queue() -> None:
    async with client_of(CONFIG, StuckPipeline()) as client:
        answer = await client.post("/v1/jobs", json={"source": {"bucket": "b", "key": "k"}})
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        assert "retry-after" in answer.headers
        assert (await client.get("/v1/jobs/none")).status_code == 404
        assert (await client.get("/v1/jobs/a%20b")).json()["code"] == "invalid_request"


# --- the description ---


def test_every_parameter_and_every_error_is_described() -> None:
    schema = make_api().openapi()
    codes = {error.code for error in leaves()}
    for method, path, operation in list_operations(schema):
        where = f"{method} {path}"
        assert operation["description"], where
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (where, parameter["name"])
        for status, answer in operation["responses"].items():
            assert answer["description"] not in {"", "Successful Response"}, (where, status)
            if int(status) < 400:
                continue
            content = answer["content"]["application/problem+json"]
            assert content["schema"]["$ref"] == "#/components/schemas/Problem"
            for code, example in content["examples"].items():
                assert code in codes
                assert example["value"]["status"] == int(status)
    text = json.dumps(schema)
    assert "HTTPValidationError" not in text
    assert "Problem" in schema["components"]["schemas"]
    body = schema["paths"]["/v1/cutout"]["post"]["requestBody"]["content"]
    assert {"image/jpeg", "multipart/form-data"} <= set(body)
    quality = next(
        item
        for item in schema["paths"]["/v1/cutout"]["post"]["parameters"]
        if item["name"] == "quality"
    )
    assert {"minimum": 1, "maximum": 100}.items() <= quality["schema"]["anyOf"][0].items()


async def test_the_page_needs_no_network(client: httpx.AsyncClient) -> None:
    answer = await client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    for _, path, _ in list_operations(make_api().openapi()):
        assert path in answer.text
    for outside in ("http://", "https://", "<script", "//cdn", "@import", "url("):
        assert outside not in answer.text, outside
    assert render_docs_page(make_api().openapi()) == answer.text


async def test_unknown_paths_and_methods(client: httpx.AsyncClient) -> None:
    answer = await client.get("/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await client.get("/v1/cutout")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
