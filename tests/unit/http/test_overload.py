"""Admission control of the endpoint: limits on bytes, images, uploads and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from serve_app.config import AppConfig
from tests.support.http_client import StuckPipeline, endpoint_client, wait_until
from tests.support.images import book, jpeg

BOOK = jpeg(book().image)


def limited(**settings: Any) -> AppConfig:
    return AppConfig.load({"http": settings, "limits": {"max_bytes": 100_000}})


async def test_the_byte_limit_applies_while_the_body_arrives() -> None:
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

    async with endpoint_client(config, stuck) as client:
        answer = await client.post("/v1/cutout", content=endless())
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
        assert sent <= 120_000
        sent = 0
        form_type = {"content-type": "multipart/form-data; boundary=y"}
        answer = await client.post("/v1/cutout", content=form(), headers=form_type)
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
        assert sent <= 300_000
        # A form may be longer than the limit of the image, but its image may not.
        answer = await client.post("/v1/cutout", files={"file": ("a", bytes(100_001))})
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")
        assert client.endpoint.buffer.reserved == 0
    assert stuck.begun == 0


async def test_above_the_limit_of_images_a_request_is_rejected_unread() -> None:
    stuck, config = StuckPipeline(), limited(max_concurrent=1)
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield BOOK

    async with endpoint_client(config, stuck) as client:
        first = asyncio.create_task(client.post("/v1/cutout", content=BOOK))
        await wait_until(lambda: stuck.begun == 1)
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


async def test_slow_uploads_take_no_slots_from_images() -> None:
    stuck, config = StuckPipeline(), limited(max_concurrent=2, max_uploads=3)
    stuck.release.set()
    proceed = asyncio.Event()
    waiting = 0

    async def slow() -> AsyncIterator[bytes]:
        nonlocal waiting
        yield BOOK[:100]
        waiting += 1
        await proceed.wait()
        yield BOOK[100:]

    async with endpoint_client(config, stuck) as client:
        slow_ones = [
            asyncio.create_task(client.post("/v1/cutout", content=slow())) for _ in range(2)
        ]
        await wait_until(lambda: waiting == 2)
        assert (await client.post("/v1/cutout", content=BOOK)).json()["detail"] == "released"
        slow_ones.append(asyncio.create_task(client.post("/v1/cutout", content=slow())))
        await wait_until(lambda: waiting == 3)
        refused = await client.post("/v1/cutout", content=BOOK)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert "max_uploads" in refused.json()["detail"]
        slow_ones.pop().cancel()
        proceed.set()
        for answer in await asyncio.gather(*slow_ones):
            assert answer.json()["detail"] == "released"


async def test_above_the_limit_of_buffered_bytes_a_request_is_rejected() -> None:
    stuck, config = StuckPipeline(), limited(max_buffered_bytes=100_000)
    async with endpoint_client(config, stuck) as client:
        first = asyncio.create_task(client.post("/v1/cutout", content=bytes(60_000)))
        await wait_until(lambda: stuck.begun == 1)
        refused = await client.post("/v1/cutout", content=bytes(60_000))
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        stuck.release.set()
        await first
        again = await client.post("/v1/cutout", content=bytes(60_000))
        assert again.json()["detail"] == "released"


async def test_a_deadline_cancels_its_own_request_only() -> None:
    stuck = StuckPipeline()
    async with endpoint_client(limited(request_timeout_s=30), stuck) as client:
        other = asyncio.create_task(client.post("/v1/cutout", content=BOOK))
        await wait_until(lambda: stuck.begun == 1)
        asked = {"x-request-timeout-seconds": "0.05"}
        answer = await client.post("/v1/cutout", content=BOOK, headers=asked)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        assert "0.05 s" in answer.json()["detail"]
        await wait_until(lambda: stuck.cancelled == 1)
        stuck.release.set()
        assert (await other).json()["detail"] == "released"
        assert stuck.cancelled == 1


async def test_a_client_cannot_extend_the_time_limit() -> None:
    stuck = StuckPipeline()
    async with endpoint_client(limited(request_timeout_s=0.05), stuck) as client:
        asked = {"x-request-timeout-seconds": "1000"}
        answer = await client.post("/v1/cutout", content=BOOK, headers=asked)
        assert answer.status_code == 504
        assert "0.05 s" in answer.json()["detail"]


async def test_the_deadline_applies_while_the_body_arrives() -> None:
    async def half() -> AsyncIterator[bytes]:
        yield BOOK[:100]
        await asyncio.sleep(60)

    stuck = StuckPipeline()
    async with endpoint_client(limited(max_uploads=1), stuck) as client:
        asked = {"x-request-timeout-seconds": "0.05"}
        answer = await client.post("/v1/cutout", content=half(), headers=asked)
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        stuck.release.set()
        assert (await client.post("/v1/cutout", content=BOOK)).json()["detail"] == "released"


async def test_a_client_that_disconnects_frees_its_slot() -> None:
    stuck = StuckPipeline()
    async with endpoint_client(limited(max_concurrent=1), stuck) as client:
        gone = asyncio.create_task(client.post("/v1/cutout", content=BOOK))
        await wait_until(lambda: stuck.begun == 1)
        gone.cancel()
        await wait_until(lambda: stuck.cancelled == 1)
        stuck.release.set()
        assert (await client.post("/v1/cutout", content=BOOK)).json()["detail"] == "released"
