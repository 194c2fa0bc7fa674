"""The HTTP API of rembg: the recipes its parameters stand for, CORS, and fetching by URL."""

from __future__ import annotations

import functools
import http.server
import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serve_app.config import AppConfig
from serve_app.contracts.recipe import Matting
from serve_app.errors import InvalidParameters
from serve_app.http.rembg_parameters import (
    RembgParameters,
    merge_parameters,
    recipe_from_rembg,
)
from serve_app.http.routes.rembg import REMOVE_PATH
from tests.support.http_client import endpoint_client
from tests.support.images import book, jpeg

SERVED = ("folio", "u2net")


@functools.cache
def encoded_book() -> bytes:
    return jpeg(book().image)


@pytest.fixture(scope="module")
def config() -> AppConfig:
    return AppConfig.load({})


def test_the_defaults_are_those_of_rembg_with_the_first_served_model() -> None:
    recipe = recipe_from_rembg({}, SERVED)
    assert recipe.models == ("folio",)
    assert recipe.matting == Matting(foreground_above=240, background_below=10, erode_px=10)
    assert (recipe.format, recipe.background, recipe.mask_only) == ("png", "transparent", False)
    assert recipe.checks.min_subject_px == 0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": "u2net"}, {"models": ("u2net",)}),
        ({"om": "1"}, {"mask_only": True}),
        ({"ppm": "yes"}, {"post_process_mask": True}),
        ({"bgc": "255,128,0,64"}, {"background": "#ff800040"}),
        ({"bgc": "1,2,3"}, {"background": "#010203ff"}),
        ({"bgc": " 300, -5 ,0,255"}, {"background": "#ff0000ff"}),
        ({"bgc": ""}, {"background": "transparent"}),
        ({"extras": '{"model_path": "/m.onnx"}'}, {}),
        ({"extras": "no JSON"}, {}),
        ({"extras": "[1]"}, {}),
        ({"extras": '{"sam_prompt": [], "api_key": "k", "unknown": 1}'}, {}),
        ({"a": "true", "ae": "2000"}, {"matting": Matting(method="closed_form", erode_px=1000)}),
        ({"unknown": "1"}, {}),
        ({"a": "true", "ae": "0"}, {"matting": Matting(method="closed_form", erode_px=0)}),
        ({"dc": "true"}, {"matting": Matting(method="decontaminate")}),
        ({"a": "true", "dc": "true"}, {"matting": Matting(method="closed_form")}),
        ({"a": "true", "om": "true"}, {"mask_only": True}),
    ],
)
def test_parameters_stand_for_recipes(fields: dict[str, str], expected: dict[str, object]) -> None:
    assert recipe_from_rembg(fields, SERVED) == recipe_from_rembg({}, SERVED).model_copy(
        update=expected
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "isnet-general-use"},
        {"model": ""},
        {"a": "perhaps"},
        {"af": "256"},
        {"ab": "-1"},
        {"ae": "ten"},
        {"bgc": "red"},
        {"bgc": "1,2"},
        {"vm": "true"},
        {"extras": '{"only_mask": true}'},
    ],
)
def test_invalid_parameters_are_rejected(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidParameters, match=next(iter(fields))):
        recipe_from_rembg(fields, SERVED)


async def test_the_form_wins_over_the_query(config: AppConfig, pipeline: Any) -> None:
    async with endpoint_client(config, pipeline) as client:
        files = {"file": ("b.jpg", encoded_book())}
        answer = await client.post(f"{REMOVE_PATH}?om=true", files=files)
        assert Image.open(io.BytesIO(answer.content)).mode == "L"
        answer = await client.post(f"{REMOVE_PATH}?om=true", files=files, data={"om": "false"})
        assert Image.open(io.BytesIO(answer.content)).mode == "RGBA"
        assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        ({"files": {"file": ("b.jpg", b"")}}, 422, "invalid_parameters"),
        ({"data": {"om": "true"}}, 422, "invalid_parameters"),
        ({"files": {"note": (None, "no file")}}, 422, "invalid_parameters"),
        ({"content": b""}, 422, "invalid_parameters"),
        ({"files": {"file": ("b.txt", b"no image")}}, 415, "unsupported_format"),
        ({"files": {"file": ("b.jpg", b"")}, "params": {"af": "x"}}, 422, "invalid_parameters"),
    ],
)
async def test_invalid_requests_have_the_status_of_rembg(
    config: AppConfig, pipeline: Any, request_of: dict[str, Any], status: int, code: str
) -> None:
    async with endpoint_client(config, pipeline) as client:
        answer = await client.post(REMOVE_PATH, **request_of)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_an_image_without_a_subject_gives_an_empty_result(
    config: AppConfig, pipeline: Any
) -> None:
    grey = jpeg(np.full((40, 60, 3), 128, np.uint8))
    async with endpoint_client(config, pipeline) as client:
        for fields, mode in (({}, "RGBA"), ({"om": "true"}, "L"), ({"a": "true"}, "RGBA")):
            answer = await client.post(REMOVE_PATH, files={"file": grey}, data=fields)
            assert answer.status_code == 200, answer.text
            image = Image.open(io.BytesIO(answer.content))
            assert (image.mode, image.size, image.getbbox()) == (mode, (60, 40), None)


# --- forms that rembg's server answers with 200, tried on rembg 2.0.86 ---

_IMAGE = "file"
_IGNORED = [(f"other-{index}", "text") for index in range(900)]


@pytest.mark.parametrize(
    ("fields", "others"),
    [
        *(([(name, "")], []) for name in RembgParameters.model_fields),
        ([("om", "true"), ("om", "")], []),
        ([("om", "maybe"), ("om", "off")], []),
        ([("a", "false"), ("vm", "False"), ("ppm", "0"), ("dc", "no")], []),
        ([("af", "240.0"), ("ab", " 10"), ("ae", "2000")], []),
        ([("bgc", "red")], []),
        ([("extras", '{"only_mask": true}')], []),
        ([("recipe", "nonsense"), ("url", "http://x.example/")], []),
        (_IGNORED, []),
        ([], [("mask", b"another file"), ("recipe", b"\xff\xfe"), ("file", b"an earlier one")]),
        ([], [("other", b"")] + [(f"more-{index}", b"x") for index in range(20)]),
    ],
)
async def test_a_form_that_rembg_answers_is_answered_alike(
    config: AppConfig,
    pipeline: Any,
    fields: list[tuple[str, str]],
    others: list[tuple[str, bytes]],
) -> None:
    parts: list[tuple[str, Any]] = [(name, (None, text)) for name, text in fields]
    parts += [(name, ("other.bin", data, "application/octet-stream")) for name, data in others]
    parts.append((_IMAGE, ("gr\u00fcn.jpg", encoded_book(), "text/plain; charset=nonsense")))
    async with endpoint_client(config, pipeline) as client:
        plain = await client.post(REMOVE_PATH, files={_IMAGE: ("b.jpg", encoded_book())})
        answer = await client.post(REMOVE_PATH, files=parts)
        assert answer.status_code == 200, answer.text
        assert answer.content == plain.content


@pytest.mark.parametrize(
    "query",
    [
        *({name: ""} for name in RembgParameters.model_fields),
        {"af": "300", "ae": "-1", "om": "maybe", "model": "zzz", "vm": "true"},
        {"file": "x", "url": "http://x.example/", "extras": '{"unknown": 1}'},
    ],
)
async def test_what_rembg_ignores_in_the_query_fails_no_post(
    config: AppConfig, pipeline: Any, query: dict[str, str]
) -> None:
    files = {_IMAGE: ("b.jpg", encoded_book())}
    async with endpoint_client(config, pipeline) as client:
        plain = await client.post(REMOVE_PATH, files=files)
        answer = await client.post(REMOVE_PATH, files=files, params=query)
        assert answer.status_code == 200, answer.text
        assert answer.content == plain.content


def test_each_parameter_counts_where_rembg_reads_it() -> None:
    merged = merge_parameters(
        {"om": "true", "bgc": "1,1,1,1", "ae": "x"},
        {"om": "false", "bgc": "2,2,2,2", "af": "200", "ab": "x", "ae": "5"},
        SERVED,
    )
    # An invalid value in rembg's own place stays, and is refused.
    assert merged == {"om": "true", "bgc": "2,2,2,2", "af": "200", "ae": "x"}


async def test_the_path_with_a_slash_leads_to_the_route(config: AppConfig, pipeline: Any) -> None:
    files = {_IMAGE: ("b.jpg", encoded_book())}
    async with endpoint_client(config, pipeline, follow_redirects=True) as client:
        answer = await client.post(f"{REMOVE_PATH}/", files=files)
        assert answer.status_code == 200


# --- web pages ---


async def test_web_pages_of_every_origin_may_post_but_not_read_fetched_images(
    config: AppConfig, pipeline: Any
) -> None:
    headers = {"Origin": "https://elsewhere.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    async with endpoint_client(config, pipeline) as client:
        before = await client.options(REMOVE_PATH, headers=headers | asked)
        assert before.status_code == 200
        posted = await client.post(REMOVE_PATH, files={"file": encoded_book()}, headers=headers)
        refused = await client.post(REMOVE_PATH, files={"file": b"x"}, headers=headers)
        for answer in (before, posted, refused):
            assert answer.headers["access-control-allow-origin"] == "*"
        fetched = await client.get(
            REMOVE_PATH, params={"url": "http://x.example/"}, headers=headers
        )
        other = await client.post("/v1/cutout", content=encoded_book(), headers=headers)
        for answer in (fetched, other):
            assert "access-control-allow-origin" not in answer.headers


# --- by URL ---


@pytest.fixture
def site(tmp_path: Any) -> Iterator[str]:
    """Serve a folder with an image on this machine, and yield its host and port."""
    (tmp_path / "book.jpg").write_bytes(encoded_book())

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"localhost:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_an_image_is_fetched_from_an_allowed_host(pipeline: Any, site: str) -> None:
    allowed = {"fetch_hosts": [site], "fetch_networks": ["127.0.0.0/8", "::1/128"]}
    async with endpoint_client(AppConfig.load({"http": allowed}), pipeline) as client:
        query = {"url": f"http://{site}/book.jpg", "om": "true"}
        answer = await client.get(REMOVE_PATH, params=query)
        assert answer.status_code == 200, answer.text
        posted = await client.post(REMOVE_PATH, files={"file": encoded_book()}, data={"om": "true"})
        assert answer.content == posted.content
        assert client.endpoint.buffer.reserved == 0
        for path, status in (("/gone.jpg", 404), ("/", 415)):
            answer = await client.get(REMOVE_PATH, params={"url": f"http://{site}{path}"})
            assert answer.status_code == status, answer.text
        answer = await client.get(REMOVE_PATH, params=query | {"af": "999"})
        assert answer.json()["code"] == "invalid_parameters"


async def test_nothing_is_fetched_from_other_hosts(
    config: AppConfig, pipeline: Any, site: str
) -> None:
    async with endpoint_client(config, pipeline) as client:
        answer = await client.get(REMOVE_PATH, params={"url": f"http://{site}/book.jpg"})
        assert (answer.status_code, answer.json()["code"]) == (403, "source_not_allowed")
        assert (await client.get(REMOVE_PATH)).status_code == 422
    listed = AppConfig.load({"http": {"fetch_hosts": [site]}})
    async with endpoint_client(listed, pipeline) as client:
        answer = await client.get(REMOVE_PATH, params={"url": f"http://{site}/book.jpg"})
        assert (answer.status_code, answer.json()["code"]) == (403, "source_not_allowed")
        assert "not public" in answer.json()["detail"]
