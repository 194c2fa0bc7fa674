"""POST /v1/cutout with the real pipeline: the same image sent in every way, and bad requests."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from PIL import ExifTags, Image

from serve_app.config import AppConfig
from serve_app.pipeline.deployment import CutoutPipeline
from serve_app.version import REVISION_VARIABLE, find_version
from tests.support.http_client import EndpointClient, StuckPipeline, endpoint_client
from tests.support.images import book, defects, jpeg

CONFIG = AppConfig.load()
BOOK = jpeg(book().image)
ANY_SIZE = {"min_subject_px": "1"}


async def test_the_response_describes_the_cut_out(client: EndpointClient) -> None:
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


async def test_every_way_to_send_an_image_gives_the_same_result(client: EndpointClient) -> None:
    recipe = {"background": "#336699", "format": "webp", "checks": {"min_subject_px": 1}}
    text = json.dumps(recipe)
    options = {"background": "#336699", "format": "webp"}
    image = ("book.jpg", BOOK, "image/jpeg")

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(BOOK), 1000):
            yield BOOK[start : start + 1000]

    ways: list[dict[str, Any]] = [
        {"content": BOOK, "params": options},
        {"content": BOOK, "params": {"recipe": text}},
        {"content": chunks(), "params": options},
        {"content": BOOK, "params": options, "headers": {"content-type": "text/plain"}},
        {"files": {"file": image}, "data": options},
        {"files": {"anything": image}, "params": options},
        {"files": {"file": image}, "data": {"recipe": text}},
        {"files": {"file": image, "recipe": (None, text, "application/json")}},
        {"files": {"file": image, "recipe": ("recipe.json", text, "application/json")}},
        {"files": {"file": image}, "data": options, "params": {"background": "black"}},
    ]
    answers = [
        await client.post("/v1/cutout", **{**way, "params": ANY_SIZE | way.get("params", {})})
        for way in ways
    ]
    for way, answer in zip(ways, answers, strict=True):
        assert answer.status_code == 200, (way, answer.text)
        assert answer.headers["etag"] == answers[0].headers["etag"], way
        assert answer.content == answers[0].content, way


async def test_a_known_etag_is_answered_with_304(client: EndpointClient) -> None:
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


async def test_a_304_needs_no_inference(pipeline: CutoutPipeline) -> None:
    class StuckWithModels(StuckPipeline):
        async def models(self) -> Any:
            return await pipeline.models()

    async with endpoint_client(CONFIG, pipeline, params=ANY_SIZE) as client:
        tag = (await client.post("/v1/cutout", content=BOOK)).headers["etag"]
    stuck = StuckWithModels()
    async with endpoint_client(CONFIG, stuck, params=ANY_SIZE) as client:
        answer = await client.post("/v1/cutout", content=BOOK, headers={"if-none-match": tag})
        assert answer.status_code == 304
        assert stuck.begun == 0


async def test_the_health_names_the_deployed_revision(
    client: EndpointClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REVISION_VARIABLE, "6c8f1d2")
    answer = (await client.get("/healthz")).json()
    assert answer == {"status": "ok", "version": find_version(), "revision": "6c8f1d2"}


async def test_head_is_get_without_a_body(client: EndpointClient) -> None:
    for path in ("/healthz", "/readyz", "/v1/models", "/docs", "/openapi.json"):
        head, get = await client.head(path), await client.get(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == get.headers["content-type"]
    head = await client.head("/v1/cutout")
    assert (head.status_code, head.content) == (405, b"")


async def test_the_accept_header_selects_the_format(client: EndpointClient) -> None:
    answer = await client.post(
        "/v1/cutout", content=BOOK, headers={"accept": "image/webp;q=0.4, image/jpeg;q=0.6"}
    )
    assert answer.headers["content-type"] == "image/jpeg"
    refused = await client.post("/v1/cutout", content=BOOK, headers={"accept": "text/html"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")


async def test_every_defective_image_has_a_code(client: EndpointClient) -> None:
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
        ({"files": {"f": ("a", BOOK), "recipe": (None, "{" * 70_000)}}, 400, "invalid_recipe"),
        ({"files": {"f": ("a", BOOK), "models": (None, "a," * 35_000)}}, 400, "invalid_request"),
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
async def test_an_invalid_request_has_a_code_and_the_next_one_works(
    client: EndpointClient, request_: dict[str, Any], status: int, code: str | None
) -> None:
    answer = await client.post("/v1/cutout", **request_)
    assert (answer.status_code, answer.json()["code"]) == (status, code or "invalid_request")
    assert (await client.post("/v1/cutout", content=BOOK)).status_code == 200


async def test_a_cropped_result_says_its_place_and_keeps_metadata(client: EndpointClient) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "A photographer"
    data = jpeg(book().image, exif=exif, dpi=(240, 240))
    options = {"crop_to_subject": "true", "keep_metadata": "true", "format": "webp"}
    answer = await client.post("/v1/cutout", content=data, params=options)
    assert answer.status_code == 200, answer.text
    left, top, right, bottom = map(int, answer.headers["foreedge-crop"].split(","))
    result = Image.open(io.BytesIO(answer.content))
    assert result.size == (right - left, bottom - top)
    assert result.getexif()[ExifTags.Base.Artist] == "A photographer"
    assert result.getexif()[ExifTags.Base.XResolution] == 240
    plain = await client.post("/v1/cutout", content=data, params={"format": "webp"})
    assert "foreedge-crop" not in plain.headers
    assert ExifTags.Base.Artist not in Image.open(io.BytesIO(plain.content)).getexif()
