"""The masks equal rembg's for the same weights."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from serve_app.config import AppConfig
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.registry import locate_weights
from tests.support.images import jpeg
from tests.support.running_app import ANY_SIZE, App

LEVELS = 2
SHARE = 0.999
PHOTOS = Path(__file__).parents[3] / "shared" / "photos"


@pytest.fixture(scope="module")
def rembg_mask(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that makes rembg's mask, with the bundled model as ``u2net_custom``.

    The first import of rembg on a machine takes more than a minute, because Numba compiles
    pymatting.
    """
    home = tmp_path_factory.mktemp("rembg")
    weights = home / "folio.onnx"
    weights.write_bytes(locate_weights("folio", AppConfig.load()).path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        # rembg reads no files outside of its home.
        patch.setenv("U2NET_HOME", str(home))
        import rembg

        session = rembg.new_session("u2net_custom", model_path=str(weights))

        def mask(data: bytes) -> npt.NDArray[np.uint8]:
            image = Image.open(io.BytesIO(data))
            found: Image.Image = rembg.remove(image, session=session, only_mask=True)
            return np.asarray(found)

        yield mask


def photographs() -> dict[str, bytes]:
    sizes = {1: (400, 300), 2: (300, 400), 3: (1600, 1200), 4: (640, 480), 5: (200, 900)}
    found = {
        f"{seed}-{kind}.jpg": jpeg(draw_photograph(seed, width=w, height=h, kind=kind).image)
        for seed, (w, h) in sizes.items()
        for kind in ("book", "object")
    }
    # These real photographs are used if they exist. The tests pass without them.
    paths = [p for p in sorted(PHOTOS.glob("*.jpg")) if PHOTOS.is_dir()]
    return found | {path.name: path.read_bytes() for path in paths}


@pytest.mark.timeout(600)
def test_masks_are_rembgs(app: App, rembg_mask: Any) -> None:
    images = photographs()
    run = app.run(images, {"mask_only": True, **ANY_SIZE})
    for name, data in images.items():
        outcome = run.outcomes[name]
        over_http = app.post(data, mask_only="true")
        if outcome.code == "no_subject":
            # rembg has no such limit and stretches the weak output that folio reports as empty.
            assert over_http.json()["code"] == "no_subject"
            continue
        assert outcome.status == "done", outcome
        assert over_http.content == run.results[name]
        ours = np.asarray(Image.open(io.BytesIO(over_http.content))).astype(int)
        difference = np.abs(ours - rembg_mask(data))
        assert (difference <= LEVELS).mean() >= SHARE, name
    found = sum(outcome.status == "done" for outcome in run.outcomes.values())
    assert found >= 0.8 * len(images)
