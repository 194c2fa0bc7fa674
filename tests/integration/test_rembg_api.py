"""The HTTP API of rembg on the running application, compared with rembg with the same weights.

``make compare-rembg`` compares it with rembg's own server, which needs a separate environment.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loadtests.peers.rembg_requests import REQUESTS, RemoveRequest, compare_images
from serve_app.config import AppConfig
from serve_app.http.routes.rembg import REMOVE_PATH
from serve_app.models.registry import locate_weights
from tests.support.images import book, jpeg
from tests.support.running_app import App

STATIC = Path(__file__).parents[2] / "serve_app" / "http" / "static"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def rembg(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that does what rembg's server does (``s_command.im_without_bg``)."""
    home = tmp_path_factory.mktemp("rembg")
    weights = home / "folio.onnx"
    weights.write_bytes(locate_weights("folio", AppConfig.load()).path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        # rembg reads files only inside its home.
        patch.setenv("U2NET_HOME", str(home))
        import rembg

        session = rembg.new_session("u2net_custom", model_path=str(weights))

        def answer(image: bytes, case: RemoveRequest) -> bytes:
            fields = case.form | case.query
            bgc = fields.get("bgc")
            found = rembg.remove(
                image,
                session=session,
                alpha_matting="a" in fields,
                alpha_matting_foreground_threshold=int(fields.get("af", 240)),
                alpha_matting_background_threshold=int(fields.get("ab", 10)),
                alpha_matting_erode_size=int(fields.get("ae", 10)),
                only_mask="om" in fields,
                post_process_mask="ppm" in fields,
                decontaminate="dc" in fields,
                bgcolor=tuple(map(int, bgc.split(","))) if bgc else None,
            )
            assert isinstance(found, bytes)
            return found

        yield answer


@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: case.name)
def test_the_result_is_that_of_rembg(app: App, rembg: Any, case: RemoveRequest) -> None:
    for seed, size in ((9, (640, 480)), (21, (300, 400))):
        image = jpeg(book(seed, *size).image)
        answer = app.http.post(
            REMOVE_PATH, files={"file": ("b.jpg", image)}, data=case.form, params=case.query
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        found = compare_images(answer.content, rembg(image, case))
        assert found.is_accepted(case), (seed, found)


def test_small_and_missing_subjects_give_a_result(app: App) -> None:
    small = book(9, 100, 80)
    answer = app.http.post(REMOVE_PATH, files={"file": jpeg(small.image)})
    assert answer.status_code == 200
    assert Image.open(io.BytesIO(answer.content)).size == (100, 80)
    empty = app.http.post(REMOVE_PATH, files={"file": jpeg(np.full((60, 80, 3), 90, np.uint8))})
    assert empty.status_code == 200
    assert Image.open(io.BytesIO(empty.content)).getbbox() is None


def test_nothing_is_fetched_if_no_host_is_allowed(app: App) -> None:
    answer = app.http.get(REMOVE_PATH, params={"url": f"{app.url}/page/icon.svg"})
    assert (answer.status_code, answer.json()["code"]) == (403, "source_not_allowed")


def test_the_page_is_served(app: App) -> None:
    answer = app.http.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    for path in ("page/page.css", "page/page.js", "page/icon.svg"):
        assert path in answer.text
        part = app.http.get(f"/{path}")
        assert part.status_code == 200
        source = STATIC / path.rpartition("/")[2]
        assert part.content == source.read_bytes()
        assert "default-src 'none'" in part.headers["content-security-policy"]
    assert app.http.get("/page/index.py").status_code == 404
