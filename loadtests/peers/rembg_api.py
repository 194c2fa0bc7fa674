"""``/api/remove`` compared with rembg's own server: ``python -m loadtests.peers.rembg_api``.

The same requests, with the same weights, go to a real ``rembg s`` (in the peers' environment) and
to Foreedge. The differences go to the terminal and, with ``--write-docs``, into docs/rembg.md. The
command exits with 1 if a status, a size, a mode or a mask differs.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
import urllib3
from PIL import Image
from rich.console import Console
from rich.table import Table

from ingest.local.application import serving
from ingest.local.ports import free_port
from loadtests.harness.results import write_between_markers
from loadtests.peers.processes import PYTHON, REMBG, running_processes
from loadtests.peers.servers import CUSTOM_MODEL
from serve_app.config import AppConfig
from serve_app.errors import InternalError
from serve_app.http.routes.rembg import REMOVE_PATH
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.registry import BUNDLED_MODEL, locate_weights

DOCS = Path("docs/rembg.md")

MAX_LEVELS = 2
"""Largest difference of two pixels that count as equal, in levels of 255."""

MIN_EQUAL_SHARE = 0.999
"""Least share of the mask's pixels that must be equal."""

MAX_MATTING_MEAN = 0.002
"""Largest mean difference of two masks after matting, from 0 to 1."""

_TIMEOUT_S = 120.0
_DRAWN = "drawn-"
_REAL_IMAGES = Path(__file__).parents[3] / "shared" / "photos"


@dataclass(frozen=True, slots=True)
class RemoveRequest:
    """A request that rembg's server answers with an image."""

    name: str
    form: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    """Query parameters, from which rembg always reads ``bgc`` and ``extras``."""

    @property
    def matted(self) -> bool:
        """Whether the mask of the response was changed by matting."""
        return "a" in self.form and "om" not in self.form


REQUESTS = (
    RemoveRequest("file alone"),
    RemoveRequest("om=true", {"om": "true"}),
    RemoveRequest("ppm=true", {"ppm": "true"}),
    RemoveRequest("om=true, ppm=true", {"om": "true", "ppm": "true"}),
    RemoveRequest("a=true", {"a": "true"}),
    RemoveRequest("a=true, af, ab, ae", {"a": "true", "af": "220", "ab": "30", "ae": "5"}),
    RemoveRequest("a=true, om=true", {"a": "true", "om": "true"}),
    RemoveRequest("dc=true", {"dc": "true"}),
    RemoveRequest("?bgc=255,255,255,255", {}, {"bgc": "255,255,255,255"}),
    RemoveRequest("?bgc=0,64,128,200", {}, {"bgc": "0,64,128,200"}),
    RemoveRequest("a=true, ?bgc=0,0,0,255", {"a": "true"}, {"bgc": "0,0,0,255"}),
)

REFUSED_REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("no file", {"fields": {"om": "true"}}),
    ("unknown model", {"fields": {"model": "nonsense"}, "file": True}),
    ("af=300", {"fields": {"af": "300"}, "file": True}),
    ("a=perhaps", {"fields": {"a": "perhaps"}, "file": True}),
    ("GET without url", {"method": "GET"}),
)
"""Requests that rembg's server refuses."""


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """Difference between two images."""

    kind: str
    """Size and mode of the images."""
    same_kind: bool
    mask_share: float
    """Share of the pixels whose masks are equal."""
    mask_mean: float
    """Mean absolute difference of the masks, from 0 to 1."""
    colour_mean: float | None
    """Mean absolute difference of the colours of opaque pixels, in levels."""

    def is_accepted(self, request: RemoveRequest) -> bool:
        """Return whether the images are as equal as the responses to a request must be."""
        if request.matted:
            equal_masks = self.mask_mean <= MAX_MATTING_MEAN
        else:
            equal_masks = self.mask_share >= MIN_EQUAL_SHARE
        return self.same_kind and equal_masks and (self.colour_mean or 0) <= MAX_LEVELS


def compare_images(ours: bytes, theirs: bytes, mask: bytes | None = None) -> ImageDifference:
    """Return the difference between two PNG files.

    Args:
        ours: Foreedge's file.
        theirs: rembg's file.
        mask: Mask of the image, for files with a background. Only colours of pixels with a
            sure mask are compared, because rembg darkens half-transparent pixels.
    """
    mine, other = (Image.open(io.BytesIO(data)) for data in (ours, theirs))
    kind = f"{other.width} x {other.height} {other.mode}"
    if (mine.size, mine.mode) != (other.size, other.mode):
        return ImageDifference(f"{mine.size} {mine.mode}, {kind}", False, 0.0, 1.0, None)
    first, second = _mask_of(mine), _mask_of(other)
    difference = np.abs(first - second)
    colour_mean = None
    opaque = (first >= 255 - MAX_LEVELS) & (second >= 255 - MAX_LEVELS)
    if mask is not None:
        values = _mask_of(Image.open(io.BytesIO(mask)))
        opaque &= (values >= 255 - MAX_LEVELS) | (values <= MAX_LEVELS)
    if mine.mode == "RGBA" and opaque.any():
        pixels = [np.asarray(image, np.int64)[..., :3][opaque] for image in (mine, other)]
        colour_mean = float(np.abs(pixels[0] - pixels[1]).mean())
    return ImageDifference(
        kind,
        True,
        float((difference <= MAX_LEVELS).mean()),
        float(difference.mean() / 255),
        colour_mean,
    )


def _mask_of(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(image.getchannel("A") if image.mode == "RGBA" else image, np.int64)


def input_images() -> dict[str, bytes]:
    """Return the images of the comparison: synthetic ones, and real ones if there are any."""
    found = {}
    for seed, size in ((9, (640, 480)), (21, (480, 640)), (3, (900, 600))):
        file = io.BytesIO()
        drawn = draw_photograph(seed, width=size[0], height=size[1], kind="book")
        Image.fromarray(drawn.image).save(file, "JPEG", quality=92)
        found[f"{_DRAWN}{seed}.jpg"] = file.getvalue()
    return found | {path.name: path.read_bytes() for path in sorted(_REAL_IMAGES.glob("*.jpg"))}


@dataclass(frozen=True, slots=True)
class RemoveServer:
    """A running server with ``/api/remove``."""

    url: str
    query: dict[str, str]
    """Query parameters of every request."""
    http: urllib3.PoolManager = field(default_factory=urllib3.PoolManager)

    def remove(self, image: bytes, request: RemoveRequest) -> urllib3.BaseHTTPResponse:
        """Send an image, and return the response."""
        file = {"file": ("photo.jpg", image)}
        fields: dict[str, Any] = {"model": CUSTOM_MODEL, **request.form, **file}
        return self.send("POST", fields, {**self.query, **request.query})

    def send(
        self, method: str, fields: dict[str, Any], query: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        """Send a request with a form, and return the response."""
        url = f"{self.url}{REMOVE_PATH}?{urlencode(query)}"
        body = fields if method == "POST" else None
        return self.http.request(method, url, fields=body, timeout=_TIMEOUT_S, retries=False)


@contextmanager
def rembg_server() -> Iterator[RemoveServer]:
    """Run ``rembg s`` with the bundled model as a custom file."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        path = shutil.copy(
            locate_weights(BUNDLED_MODEL, AppConfig.load()).path, Path(home, "model.onnx")
        )
        command = [REMBG, "s", "--no-ui", "--host", "127.0.0.1", "--port", str(port)]
        with running_processes([command], str(path), environment={"BROWSER": "true"}) as server:
            server.wait_for_port(port)
            extras = {"extras": json.dumps({"model_path": str(path)})}
            yield RemoveServer(f"http://127.0.0.1:{port}", extras)


@contextmanager
def foreedge_server() -> Iterator[RemoveServer]:
    """Run Foreedge with the same file under the same name."""
    path = str(locate_weights(BUNDLED_MODEL, AppConfig.load()).path)
    settings = {"models": [CUSTOM_MODEL], "model_files": {CUSTOM_MODEL: path}}
    with serving(settings, port=free_port(), quiet=True) as endpoints:
        # A client of rembg that moves to Foreedge changes the URL and keeps its extras.
        extras = {"extras": json.dumps({"model_path": "/elsewhere/model.onnx"})}
        yield RemoveServer(endpoints.http, extras)


def compare_servers(
    ours: RemoveServer, theirs: RemoveServer, console: Console
) -> tuple[list[list[str]], bool]:
    """Send all requests to both servers.

    Returns:
        Rows of the table, and whether all responses are as equal as they must be.
    """
    images = input_images()
    masks = {
        name: theirs.remove(image, RemoveRequest("", {"om": "true"})).data
        for name, image in images.items()
    }
    rows, all_equal = [], True
    for request in REQUESTS:
        found = []
        for name, image in images.items():
            if request.matted and not name.startswith(_DRAWN):
                # rembg's solver takes minutes if large parts of a mask are unsure.
                continue
            mine, other = ours.remove(image, request), theirs.remove(image, request)
            if (mine.status, other.status) != (200, 200):
                statuses = f"{mine.status} from Foreedge, {other.status} from rembg"
                raise InternalError(f"the request {request.name} with {name} failed: {statuses}")
            mask = masks[name] if "bgc" in request.query and not request.matted else None
            found.append(compare_images(mine.data, other.data, mask))
            if not found[-1].is_accepted(request):
                console.print(f"{request.name}, {name}: {found[-1]}", highlight=False)
                all_equal = False
        rows.append(_make_row(request, found))
    for name, our_status, their_status in _compare_refusals(ours, theirs, images):
        all_equal &= our_status == their_status
        rows.append([name, f"{our_status}, {their_status}", "", "", "", ""])
    return rows, all_equal


def _make_row(request: RemoveRequest, found: list[ImageDifference]) -> list[str]:
    colours = [each.colour_mean for each in found if each.colour_mean is not None]
    return [
        request.name,
        "200, 200",
        "same" if all(each.same_kind for each in found) else "DIFFERENT",
        f"{100 * min(each.mask_share for each in found):.3f} %",
        f"{max(each.mask_mean for each in found):.5f}",
        f"{max(colours):.2f}" if colours else "",
    ]


def _compare_refusals(
    ours: RemoveServer, theirs: RemoveServer, images: dict[str, bytes]
) -> Iterator[tuple[str, int, int]]:
    """Yield the name of each request that rembg refuses, our status and rembg's."""
    image = next(iter(images.values()))
    for name, request in REFUSED_REQUESTS:
        fields = {**request.get("fields", {})}
        if request.get("file"):
            fields["file"] = ("photo.jpg", image)
        fields.setdefault("model", CUSTOM_MODEL)
        method = request.get("method", "POST")
        ours_found, theirs_found = (server.send(method, fields, {}) for server in (ours, theirs))
        yield name, ours_found.status, theirs_found.status


HEADINGS = (
    "request",
    "status: Foreedge, rembg",
    "size and mode",
    "mask within 2 levels, worst",
    "mask, mean difference, worst",
    "colours where the mask is sure, mean levels, worst",
)


def markdown(rows: list[list[str]], images: int) -> str:
    """Return the table for the document."""
    lines = [
        f"`make compare-rembg`: {images} images (matting: the drawn ones),",
        f"rembg 2.0.86, the bundled model as its `{CUSTOM_MODEL}`:",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines)


def main() -> None:
    """Compare the servers, print the table, and exit with 1 if a response differs."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.peers.rembg_api",
        description="Compare /api/remove with rembg's own server.",
    )
    parser.add_argument("--write-docs", action="store_true", help=f"write the table into {DOCS}")
    options = parser.parse_args()
    if not PYTHON.is_file():
        parser.error("the peers are not installed. Run make .venv-peers/installed first.")
    console = Console()
    with rembg_server() as theirs, foreedge_server() as ours:
        rows, all_equal = compare_servers(ours, theirs, console)
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if options.write_docs:
        write_between_markers(DOCS, "compare", markdown(rows, len(input_images())))
    sys.exit(0 if all_equal else 1)


if __name__ == "__main__":
    main()
