"""Make the picture of decision 0029: the replaced worker's recipe beside ours, with one model.

``python -m docs.images.catalog_recipe`` made the present one. rembg makes the first two columns of
cut-outs, as that worker did: its third attempt had no matting, the others had. Ours is the last.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rembg import new_session, remove

from docs.images.before_after import GAP_PX
from ingest.local.photographs import copy_real_photographs
from serve_app.config import AppConfig
from serve_app.contracts.recipe import parse_recipe
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.pipeline.segmenters import LocalSegmenters
from serve_app.storage import open_store

MODEL = "u2netp"
TILE = (290, 218)
TEXT_PX = 28
COLUMNS = ("image", "worker, not matted", "worker, matted by rembg", "Foreedge")
LUMA = (0.299, 0.587, 0.114)
DARK_BELOW = 128
OUT = Path(__file__).with_name("catalog-recipe.jpg")


@dataclass(frozen=True, slots=True)
class Detail:
    """A part of a photograph with hair, of which every picture is shown enlarged."""

    name: str
    """Name of the photograph in ``ingest/local/real_photographs``."""
    left: float
    """Left edge of the part, as a share of the photograph's width."""
    top: float
    """Upper edge of the part, as a share of its height."""
    width: float
    """Width of the part, as a share of the photograph's."""

    def crop(self, picture: Image.Image) -> Image.Image:
        """Return the part, in the shape of a tile."""
        left, top = round(self.left * picture.width), round(self.top * picture.height)
        width = round(self.width * picture.width)
        height = round(width * TILE[1] / TILE[0])
        return picture.crop((left, top, left + width, top + height))


DETAILS = (Detail("astronaut", 0.27, 0.0, 0.35), Detail("raccoon", 0.74, 0.07, 0.22))


def of_the_worker(photograph: Image.Image, *, matted: bool) -> Image.Image:
    """Return a cut-out by the replaced worker's recipe."""
    made = remove(photograph, session=new_session(MODEL), alpha_matting=matted)
    assert isinstance(made, Image.Image)
    pixels = np.asarray(made.convert("RGBA"), np.float64)
    subject = pixels[..., 3] > 0
    mean = (pixels[..., :3] @ LUMA)[subject].mean() if subject.any() else DARK_BELOW
    result = Image.new("RGB", made.size, "black" if mean < DARK_BELOW else "white")
    result.paste(made, mask=made.getchannel("A"))
    return result


async def of_foreedge(photograph: bytes) -> Image.Image:
    """Return a cut-out by the recipe of catalog jobs."""
    with tempfile.TemporaryDirectory() as folder:
        config = AppConfig.load({"models": [MODEL], "storage.local_root": folder})
        threads = imaging_threads(config.pipeline)
        segmenters = LocalSegmenters(config, threads)
        pipeline = ImagePipeline(config, open_store(config), segmenters, threads)
        rendered = await pipeline.cut_out(photograph, parse_recipe("catalog"))
    return Image.open(io.BytesIO(rendered.data))


def rows(path: Path, detail: Detail) -> list[list[Image.Image]]:
    """Return the tiles of a photograph: one row of the whole, and one of the part."""
    photograph = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    pictures = [
        photograph,
        of_the_worker(photograph, matted=False),
        of_the_worker(photograph, matted=True),
        asyncio.run(of_foreedge(path.read_bytes())),
    ]
    whole = [ImageOps.pad(each, TILE, Image.Resampling.LANCZOS, "#888888") for each in pictures]
    parts = [detail.crop(each).resize(TILE, Image.Resampling.LANCZOS) for each in pictures]
    return [whole, parts]


def main(out: Annotated[Path, typer.Option()] = OUT) -> None:
    """Put the cut-outs of each recipe beside each other."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {path.stem: path for path in copy_real_photographs(Path(folder), 6)}
        lines = [line for detail in DETAILS for line in rows(paths[detail.name], detail)]
    width, height = TILE[0] + GAP_PX, TILE[1] + GAP_PX
    size = (len(COLUMNS) * width - GAP_PX, TEXT_PX + len(lines) * height - GAP_PX)
    picture = Image.new("RGB", size, "#888888")
    draw = ImageDraw.Draw(picture)
    for column, text in enumerate(COLUMNS):
        draw.text((column * width + 4, 4), text, "white", ImageFont.load_default(18))
        for row, line in enumerate(lines):
            picture.paste(line[column], (column * width, TEXT_PX + row * height))
    picture.save(out, quality=80)


if __name__ == "__main__":
    typer.run(main)
