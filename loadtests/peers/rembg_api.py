"""``/api/remove`` beside rembg's own server: ``python -m loadtests.peers.rembg_api``.

The same requests, with the same weights, to a real ``rembg s`` (in the peers' environment) and to a
Foreedge. What differs goes to the terminal and, with ``--write-docs``, into docs/rembg.md. Ends
with 1 where a status, a size, a mode or a mask is not the same.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
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
from ingest.local.ports import free_port, is_free
from loadtests.harness.results import between_markers
from loadtests.peers.systems import PYTHON
from serve_app.config import AppConfig
from serve_app.errors import DeadlineExceeded, InternalError
from serve_app.http.routes.rembg import REMOVE_PATH
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.registry import BUNDLED_MODEL, locate_weights

DOCS = Path("docs/rembg.md")
MODEL = "u2net_custom"
"""rembg's name for a file of one's own."""

LEVELS = 2
SHARE = 0.999
MATTING_MEAN = 0.002

_START_TIMEOUT_S = 180.0
_TIMEOUT_S = 120.0
_DRAWN = "drawn-"
_PHOTOS = Path(__file__).parents[3] / "shared" / "photos"


@dataclass(frozen=True, slots=True)
class Case:
    """A request that rembg's server answers with a picture."""

    name: str
    form: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    """rembg reads ``bgc`` and ``extras`` from the query, whatever the method is."""

    @property
    def matted(self) -> bool:
        """Whether the answer's mask is not the model's."""
        return "a" in self.form and "om" not in self.form


CASES = (
    Case("file alone"),
    Case("om=true", {"om": "true"}),
    Case("ppm=true", {"ppm": "true"}),
    Case("om=true, ppm=true", {"om": "true", "ppm": "true"}),
    Case("a=true", {"a": "true"}),
    Case("a=true, af, ab, ae", {"a": "true", "af": "220", "ab": "30", "ae": "5"}),
    Case("a=true, om=true", {"a": "true", "om": "true"}),
    Case("dc=true", {"dc": "true"}),
    Case("?bgc=255,255,255,255", {}, {"bgc": "255,255,255,255"}),
    Case("?bgc=0,64,128,200", {}, {"bgc": "0,64,128,200"}),
    Case("a=true, ?bgc=0,0,0,255", {"a": "true"}, {"bgc": "0,0,0,255"}),
)

REFUSED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("no file", {"fields": {"om": "true"}}),
    ("unknown model", {"fields": {"model": "nonsense"}, "file": True}),
    ("af=300", {"fields": {"af": "300"}, "file": True}),
    ("a=perhaps", {"fields": {"a": "perhaps"}, "file": True}),
    ("GET without url", {"method": "GET"}),
)
"""Requests that rembg's server refuses."""


@dataclass(frozen=True, slots=True)
class Found:
    """How far two pictures are from each other."""

    kind: str
    """Size and mode."""
    same_kind: bool
    mask_share: float
    """Of the pixels whose masks are within two levels."""
    mask_mean: float
    """Mean absolute difference of the masks, 0 to 1."""
    colour_mean: float | None
    """Mean absolute difference of colours, in levels, where both are opaque."""

    def passes(self, case: Case) -> bool:
        """Return whether they are the same, as far as is asked for."""
        mask = self.mask_mean <= MATTING_MEAN if case.matted else self.mask_share >= SHARE
        return self.same_kind and mask and (self.colour_mean or 0) <= LEVELS


def judge(ours: bytes, theirs: bytes, mask: bytes | None = None) -> Found:
    """Return how far two answers, PNG files, are from each other.

    Args:
        ours: Foreedge's.
        theirs: rembg's.
        mask: Of the image, where the answers have a background: their colours are compared where
            it is decided, since rembg darkens what is half transparent.
    """
    mine, other = (Image.open(io.BytesIO(data)) for data in (ours, theirs))
    kind = f"{other.width} x {other.height} {other.mode}"
    if (mine.size, mine.mode) != (other.size, other.mode):
        return Found(f"{mine.size} {mine.mode}, {kind}", False, 0.0, 1.0, None)
    first, second = _mask(mine), _mask(other)
    difference = np.abs(first - second)
    colour_mean = None
    opaque = (first >= 255 - LEVELS) & (second >= 255 - LEVELS)
    if mask is not None:
        values = _mask(Image.open(io.BytesIO(mask)))
        opaque &= (values >= 255 - LEVELS) | (values <= LEVELS)
    if mine.mode == "RGBA" and opaque.any():
        pixels = [np.asarray(image, np.int64)[..., :3][opaque] for image in (mine, other)]
        colour_mean = float(np.abs(pixels[0] - pixels[1]).mean())
    return Found(
        kind,
        True,
        float((difference <= LEVELS).mean()),
        float(difference.mean() / 255),
        colour_mean,
    )


def _mask(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(image.getchannel("A") if image.mode == "RGBA" else image, np.int64)


def photographs() -> dict[str, bytes]:
    """Return the photographs: drawn ones, and real ones where they are."""
    found = {}
    for seed, size in ((9, (640, 480)), (21, (480, 640)), (3, (900, 600))):
        file = io.BytesIO()
        drawn = draw_photograph(seed, width=size[0], height=size[1], kind="book")
        Image.fromarray(drawn.image).save(file, "JPEG", quality=92)
        found[f"{_DRAWN}{seed}.jpg"] = file.getvalue()
    return found | {path.name: path.read_bytes() for path in sorted(_PHOTOS.glob("*.jpg"))}


@dataclass(frozen=True, slots=True)
class Server:
    """One of the two."""

    url: str
    model: dict[str, str]
    """Form fields that choose the model."""
    query: dict[str, str]
    http: urllib3.PoolManager = field(default_factory=urllib3.PoolManager)

    def remove(self, image: bytes, case: Case) -> urllib3.BaseHTTPResponse:
        """Ask for a picture."""
        fields: dict[str, Any] = {**self.model, **case.form, "file": ("photo.jpg", image)}
        return self.ask("POST", fields, {**self.query, **case.query})

    def ask(
        self, method: str, fields: dict[str, Any], query: dict[str, str]
    ) -> urllib3.BaseHTTPResponse:
        """Send a request; its parameters go into a form, but for the query."""
        url = f"{self.url}{REMOVE_PATH}?{urlencode(query)}"
        body = fields if method == "POST" else None
        return self.http.request(method, url, fields=body, timeout=_TIMEOUT_S, retries=False)


@contextmanager
def rembg_server() -> Iterator[Server]:
    """Run ``rembg s`` with the bundled model as its own file."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as log:
        path = shutil.copy(
            locate_weights(BUNDLED_MODEL, AppConfig.load()).path, Path(home, "model.onnx")
        )
        listen = ["--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(
            [str(PYTHON.with_name("rembg").absolute()), "s", "--no-ui", *listen],
            env={**os.environ, "U2NET_HOME": home, "BROWSER": "true"},
            stdout=log,
            stderr=log,
        )
        try:
            deadline = time.monotonic() + _START_TIMEOUT_S
            while is_free("127.0.0.1", port):
                if process.poll() is not None:
                    log.seek(0)
                    raise InternalError(f"rembg s ended: {log.read()[-2000:]}")
                if time.monotonic() > deadline:
                    raise DeadlineExceeded("rembg s did not start")
                time.sleep(0.2)
            extras = {"extras": json.dumps({"model_path": str(path)})}
            yield Server(f"http://127.0.0.1:{port}", {"model": MODEL}, extras)
        finally:
            process.terminate()
            process.wait()


@contextmanager
def foreedge_server() -> Iterator[Server]:
    """Run Foreedge with the same file under the same name."""
    path = str(locate_weights(BUNDLED_MODEL, AppConfig.load()).path)
    settings = {"models": [MODEL], "model_files": {MODEL: path}}
    with serving(settings, port=free_port(), quiet=True) as endpoints:
        # Its clients change the address, and nothing else.
        extras = {"extras": json.dumps({"model_path": "/elsewhere/model.onnx"})}
        yield Server(endpoints.http, {"model": MODEL}, extras)


def compare(ours: Server, theirs: Server, console: Console) -> tuple[list[list[str]], bool]:
    """Return the rows of the table, and whether everything is as it should be."""
    rows, sound = [], True
    images = photographs()
    masks = {
        name: theirs.remove(image, Case("", {"om": "true"})).data for name, image in images.items()
    }
    for case in CASES:
        found = []
        for name, image in images.items():
            if case.matted and not name.startswith(_DRAWN):
                # Where a mask is unsure of much, rembg's solver goes on for minutes.
                continue
            mine, other = ours.remove(image, case), theirs.remove(image, case)
            if (mine.status, other.status) != (200, 200):
                raise InternalError(f"{case.name}, {name}: {mine.status}, {other.status}")
            mask = masks[name] if "bgc" in case.query and not case.matted else None
            found.append(judge(mine.data, other.data, mask))
            if not found[-1].passes(case):
                console.print(f"{case.name}, {name}: {found[-1]}", highlight=False)
                sound = False
        colours = [each.colour_mean for each in found if each.colour_mean is not None]
        rows.append(
            [
                case.name,
                "200, 200",
                "same" if all(each.same_kind for each in found) else "DIFFERENT",
                f"{100 * min(each.mask_share for each in found):.3f} %",
                f"{max(each.mask_mean for each in found):.5f}",
                f"{max(colours):.2f}" if colours else "",
            ]
        )
    image = next(iter(images.values()))
    for name, request in REFUSED:
        fields = {**request.get("fields", {})}
        if request.get("file"):
            fields["file"] = ("photo.jpg", image)
        fields.setdefault("model", MODEL)
        answers = [
            server.ask(request.get("method", "POST"), fields, {}) for server in (ours, theirs)
        ]
        statuses = [str(answer.status) for answer in answers]
        sound &= statuses[0] == statuses[1]
        rows.append([name, ", ".join(statuses), "", "", "", ""])
    return rows, sound


HEADINGS = (
    "request",
    "status: Foreedge, rembg",
    "size and mode",
    "mask within 2 levels, worst",
    "mask, mean difference, worst",
    "colours where the mask is sure, mean levels, worst",
)


def markdown(rows: list[list[str]], photographs_: int) -> str:
    """Return the table for the document."""
    lines = [
        f"`make compare-rembg`: {photographs_} photographs (matting: the drawn ones),",
        f"rembg 2.0.86, the bundled model as its `{MODEL}`:",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines)


def main() -> None:
    """Compare, and say what was found."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.peers.rembg_api")
    parser.add_argument("--write-docs", action="store_true", help=f"write the table into {DOCS}")
    options = parser.parse_args()
    if not PYTHON.is_file():
        parser.error("the peers are not installed: make .venv-peers/installed")
    console = Console()
    with rembg_server() as theirs, foreedge_server() as ours:
        rows, sound = compare(ours, theirs, console)
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if options.write_docs:
        content = markdown(rows, len(photographs()))
        DOCS.write_text(between_markers(DOCS.read_text(), "compare", content))
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
