"""``/api/remove`` compared with rembg's own server: ``python -m loadtests.peers.rembg_api``.

The same requests, with the same weights, go to a real ``rembg s`` (in the peers' environment) and
to Foreedge: true u2netp if its weights are on this machine, else the bundled model. There are real
images (``real_images``) and a few drawn ones. The differences go to the terminal and, with
``--write-docs``, into docs/rembg.md. The command exits with 1 if a status, a size, a mode or a mask
differs.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import urllib3
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ingest.local.application import serving
from ingest.local.ports import free_port
from loadtests.harness.results import write_between_markers
from loadtests.peers import real_images
from loadtests.peers.processes import PYTHON, REMBG, running_processes
from loadtests.peers.rembg_requests import (
    REFUSED_REQUESTS,
    REQUESTS,
    ImageDifference,
    RemoveRequest,
    compare_images,
)
from loadtests.peers.servers import CUSTOM_MODEL
from serve_app.config import AppConfig
from serve_app.contracts.recipe import Matting
from serve_app.errors import ForeedgeError, InternalError, SourceNotFound
from serve_app.http.routes.rembg import REMOVE_PATH
from serve_app.imaging.matting import TRIMAP_UNKNOWN, make_trimap
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.registry import BUNDLED_MODEL, find_downloaded_file, locate_weights

DOCS = Path("docs/rembg.md")

_TIMEOUT_S = 300.0
_TRUE_MODEL = "u2netp"
_DRAWN = "drawn-"
_REAL_IMAGES = 20
_LARGEST_BAND = 0.15
"""Largest share of an image's pixels that matting has to estimate, for an image that is matted.

rembg's solver takes minutes if large parts of a mask are unsure, and 28 GB at 2048 x 1536.
"""


def drawn_images() -> dict[str, bytes]:
    """Return drawn images, by name."""
    found = {}
    for seed, size in ((9, (640, 480)), (21, (480, 640)), (3, (900, 600))):
        file = io.BytesIO()
        drawn = draw_photograph(seed, width=size[0], height=size[1], kind="book")
        Image.fromarray(drawn.image).save(file, "JPEG", quality=92)
        found[f"{_DRAWN}{seed}.jpg"] = file.getvalue()
    return found


def choose_real_images(folders: list[Path], count: int, console: Console) -> dict[str, bytes]:
    """Return real images, by name: of folders, or of the demonstration and of Debian."""
    if folders:
        return real_images.images_of(folders, count)
    found = dict(list(real_images.demonstration_images().items())[:count])
    try:
        return found | real_images.composites(count - len(found))
    except SourceNotFound as error:
        text = f"Only {len(found)} real images: {error.message}"
        console.print(text, markup=False, highlight=False)
        return found


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
def rembg_server(weights: Path) -> Iterator[RemoveServer]:
    """Run ``rembg s`` with weights as a custom file."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        # rembg reads files only inside its home.
        path = shutil.copy(weights, Path(home, "model.onnx"))
        command = [REMBG, "s", "--no-ui", "--host", "127.0.0.1", "--port", str(port)]
        with running_processes([command], str(path), environment={"BROWSER": "true"}) as server:
            server.wait_for_port(port)
            extras = {"extras": json.dumps({"model_path": str(path)})}
            yield RemoveServer(f"http://127.0.0.1:{port}", extras)


@contextmanager
def foreedge_server(weights: Path) -> Iterator[RemoveServer]:
    """Run Foreedge with the same weights under the same name."""
    settings = {"models": [CUSTOM_MODEL], "model_files": {CUSTOM_MODEL: str(weights.resolve())}}
    with serving(settings, port=free_port(), quiet=True) as endpoints:
        # A client of rembg that moves to Foreedge changes the URL and keeps its extras.
        extras = {"extras": json.dumps({"model_path": "/elsewhere/model.onnx"})}
        yield RemoveServer(endpoints.http, extras)


class Comparison:
    """The two servers, and the differences between their answers."""

    def __init__(self, ours: RemoveServer, theirs: RemoveServer, console: Console) -> None:
        self._servers = (ours, theirs)
        self._console = console
        self._threads = ThreadPoolExecutor(len(self._servers), "server")
        self.rows: list[list[str]] = []
        """Rows of the table."""
        self.all_equal = True
        """Whether all answers are as equal as they must be."""

    def run(self, images: dict[str, bytes]) -> None:
        """Send all requests to both servers."""
        masks = {
            name: self._servers[1].remove(image, RemoveRequest("", {"om": "true"})).data
            for name, image in images.items()
        }
        matted = {name for name, mask in masks.items() if band_share(mask) <= _LARGEST_BAND}
        for request in track(REQUESTS, "Requests", console=self._console):
            names = [name for name in images if name in matted or not request.matted]
            found = [self._compare(request, name, images[name], masks[name]) for name in names]
            self.rows.append(_make_row(request, found))
        image = next(iter(images.values()))
        for name, request_of in REFUSED_REQUESTS:
            ours, theirs = (_refusal(server, request_of, image) for server in self._servers)
            self.all_equal &= ours == theirs
            self.rows.append([name, "1", f"{ours}, {theirs}", *[""] * (len(HEADINGS) - 3)])

    def _compare(
        self, request: RemoveRequest, name: str, image: bytes, mask: bytes
    ) -> ImageDifference:
        mine, other = self._threads.map(lambda server: server.remove(image, request), self._servers)
        if (mine.status, other.status) != (200, 200):
            statuses = f"{mine.status} from Foreedge, {other.status} from rembg"
            raise InternalError(f"the request {request.name} with {name} failed: {statuses}")
        on_background = "bgc" in request.query and not request.matted
        found = compare_images(mine.data, other.data, mask if on_background else None)
        if not found.is_accepted(request):
            text = f"{request.name}, {name}: {found}"
            self._console.print(text, markup=False, highlight=False)
            self.all_equal = False
        return found


def band_share(mask: bytes) -> float:
    """Return the share of a mask's pixels that matting with rembg's defaults has to estimate."""
    trimap = make_trimap(np.asarray(Image.open(io.BytesIO(mask))), Matting(method="closed_form"))
    return float((trimap == TRIMAP_UNKNOWN).mean())


def _make_row(request: RemoveRequest, found: list[ImageDifference]) -> list[str]:
    colours = [each.colour_mean for each in found if each.colour_mean is not None]
    return [
        request.name,
        str(len(found)),
        "200, 200",
        "same" if all(each.same_kind for each in found) else "DIFFERENT",
        f"{100 * min(each.mask_share for each in found):.3f} %",
        f"{max(each.mask_mean for each in found):.5f}",
        str(max(each.mask_max for each in found)),
        f"{max(colours):.2f}" if colours else "",
    ]


def _refusal(server: RemoveServer, request: dict[str, Any], image: bytes) -> int:
    """Return a server's status of a request that rembg refuses."""
    fields = {**request.get("fields", {})}
    if request.get("file"):
        fields["file"] = ("photo.jpg", image)
    fields.setdefault("model", CUSTOM_MODEL)
    return server.send(request.get("method", "POST"), fields, {}).status


HEADINGS = (
    "request",
    "images",
    "status: Foreedge, rembg",
    "size and mode",
    "mask within 2 levels, worst",
    "mask, mean difference, worst",
    "mask, largest difference, levels",
    "colours where the mask is sure, mean levels, worst",
)


def markdown(rows: list[list[str]], model: str, real: int, drawn: int) -> str:
    """Return the table for the document."""
    lines = [
        f"`make compare-rembg`: {real} real images of at most {real_images.MAX_SIDE_PX} "
        f"pixels and {drawn} drawn images, rembg 2.0.86, {model} as its `{CUSTOM_MODEL}`. Matting "
        f"leaves out images of which it has to estimate more than {_LARGEST_BAND:.0%}.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.peers.rembg_api",
        description="Compare /api/remove with rembg's own server.",
    )
    add = parser.add_argument
    here = find_downloaded_file(_TRUE_MODEL, AppConfig.load()) is not None
    default = _TRUE_MODEL if here else BUNDLED_MODEL
    models = (_TRUE_MODEL, BUNDLED_MODEL)
    add("--model", choices=models, default=default, help=f"default here: {default}")
    folder = "folder of JPEG files, repeatable (default: the demonstration's, and Debian's)"
    add("--images", type=Path, action="append", metavar="FOLDER", help=folder)
    add("--count", type=int, default=_REAL_IMAGES, help="most real images (default: 20)")
    add("--write-docs", action="store_true", help=f"write the table into {DOCS}")
    options = parser.parse_args()
    if not PYTHON.is_file():
        parser.error("the peers are not installed. Run make .venv-peers/installed first.")
    return options


def main() -> None:
    """Compare the servers, print the table, and exit with 1 if a response differs."""
    options = _parse_arguments()
    console = Console()
    weights = locate_weights(options.model, AppConfig.load()).path
    real = choose_real_images(options.images or [], options.count, console)
    drawn = drawn_images()
    console.print(f"{options.model}, {len(real)} real images, {len(drawn)} drawn images")
    with rembg_server(weights) as theirs, foreedge_server(weights) as ours:
        comparison = Comparison(ours, theirs, console)
        comparison.run(real | drawn)
    table = Table(*HEADINGS)
    for row in comparison.rows:
        table.add_row(*row)
    console.print(table)
    if options.write_docs:
        model = f"true {options.model}" if options.model == _TRUE_MODEL else "the bundled model"
        text = markdown(comparison.rows, model, len(real), len(drawn))
        write_between_markers(DOCS, "compare", text)
    sys.exit(0 if comparison.all_equal else 1)


if __name__ == "__main__":
    try:
        main()
    except ForeedgeError as error:
        sys.exit(f"error: {error.code}: {error.message}")
