"""Models that are served, and asked only for recipes that name them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from serve_app.config import AppConfig
from serve_app.models.registry import locate_weights
from tests.support.http_client import endpoint_client, local_pipeline
from tests.support.images import book, jpeg

BOOK = jpeg(book().image)
ANY_SIZE = {"min_subject_px": "1"}


def config() -> AppConfig:
    weights = locate_weights("folio", AppConfig.load()).path
    return AppConfig.load({"model_files": {"spare": weights}, "models_on_request": "spare, folio"})


def small_book() -> bytes:
    """Return an image with a book of less than 100 pixels."""
    image = np.full((300, 400, 3), 200, np.uint8)
    image[100:190, 100:220] = np.asarray(Image.fromarray(book().image).resize((120, 90)))
    return jpeg(image)


async def test_a_recipe_that_names_no_model_asks_the_default_ones_only() -> None:
    """Before that, a mask of a model for other subjects replaced one that failed the checks."""
    settings = config()
    async with endpoint_client(settings, local_pipeline(settings)) as client:
        answer = await client.post("/v1/cutout", content=BOOK, params=ANY_SIZE)
        assert answer.headers["foreedge-model"] == "folio"
        plain = answer.headers["foreedge-fingerprint"]
        answer = await client.post(
            "/v1/cutout", content=BOOK, params={**ANY_SIZE, "models": "spare"}
        )
        assert answer.headers["foreedge-model"] == "spare"
        assert answer.headers["foreedge-fingerprint"] != plain
        failed = await client.post("/v1/cutout", content=small_book())
        assert failed.json()["code"] == "subject_too_small"
        assert "spare" not in failed.text
        answer = await client.post("/v1/cutout", content=BOOK, params={"models": "u2net"})
        assert answer.json()["detail"].endswith("choose from folio, spare")
        answer = await client.post("/api/remove?model=spare", files={"file": BOOK})
        assert answer.status_code == 200, answer.text
        listed = (await client.get("/v1/models")).json()["models"]
        assert [model["name"] for model in listed] == ["folio", "spare"]
    alone = AppConfig.load()
    async with endpoint_client(alone, local_pipeline(alone)) as client:
        answer = await client.post("/v1/cutout", content=BOOK, params=ANY_SIZE)
        assert answer.headers["foreedge-fingerprint"] == plain
