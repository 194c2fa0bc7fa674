"""Make the picture at the top of the README from what ``make demo`` wrote.

``python -m docs.images.before_after astronaut coffee raccoon book-00078`` made the present one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageOps

TILE = (400, 300)
GAP_PX = 12
SQUARE_PX = 12
OUT = Path(__file__).with_name("before-after.jpg")
LIGHT, DARK = 255, 228


def chequered(width: int, height: int) -> Image.Image:
    """Return what programs show behind transparent pictures."""
    rows, columns = np.indices((height, width)) // SQUARE_PX
    return Image.fromarray(np.where((rows + columns) % 2, LIGHT, DARK).astype(np.uint8))


def tile(path: Path) -> Image.Image:
    """Return the part of a picture that fills a tile, with its alpha channel if it has one."""
    picture = Image.open(path)
    # Subjects stand on the ground, and faces are above the middle.
    return ImageOps.fit(picture, TILE, Image.Resampling.LANCZOS, centering=(0.5, 0.3))


def main(
    names: Annotated[list[str], typer.Argument(help="Such as book-00078; one column for each.")],
    demo: Annotated[Path, typer.Option(help="What the demonstration wrote.")] = Path("out/demo"),
    out: Annotated[Path, typer.Option()] = OUT,
) -> None:
    """Put photographs above their cut-outs."""
    width, height = TILE
    size = (len(names) * (width + GAP_PX) - GAP_PX, 2 * height + GAP_PX)
    picture = Image.new("RGB", size, "white")
    for column, name in enumerate(names):
        left = column * (width + GAP_PX)
        after = tile(demo / "cutouts" / f"{name}.png")
        picture.paste(tile(demo / "photographs" / f"{name}.jpg"), (left, 0))
        picture.paste(chequered(*TILE), (left, height + GAP_PX))
        picture.paste(after, (left, height + GAP_PX), after)
    picture.save(out, quality=88)


if __name__ == "__main__":
    typer.run(main)
