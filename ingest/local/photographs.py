"""Synthetic photographs as JPEG files, for the demonstration."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

_WIDTH, _HEIGHT = 1600, 1200

_JPEG_QUALITY = 92


_OBJECT_EVERY = 6


_PROCESSES = 2


def make_photographs(
    folder: Path,
    count: int,
    seed: int,
    on_made: Callable[[int], None] = lambda _: None,
    *,
    sizes: Sequence[tuple[int, int]] = ((_WIDTH, _HEIGHT),),
    keep: bool = False,
) -> list[Path]:
    """Draw photographs and write them as JPEG files; the same seed makes the same ones.

    Args:
        folder: Where they go; made if it does not exist.
        count: How many.
        seed: Of the first; the others follow.
        on_made: Called with 1 after each one that was drawn.
        sizes: Widths and heights in pixels, in turn.
        keep: Whether files that are there are not drawn again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ["object" if i % _OBJECT_EVERY == _OBJECT_EVERY - 1 else "book" for i in range(count)]
    paths = [folder / f"{kind}-{seed + i:05d}.jpg" for i, kind in enumerate(kinds)]
    wanted = [i for i, path in enumerate(paths) if not (keep and path.is_file())]
    if not wanted:
        return paths
    # Spawned, not forked: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
        drawn = pool.map(
            _make_photograph,
            [seed + i for i in wanted],
            [kinds[i] for i in wanted],
            [sizes[i % len(sizes)] for i in wanted],
            [paths[i] for i in wanted],
        )
        for _ in drawn:
            on_made(1)
    return paths


def _make_photograph(seed: int, kind: Any, size: tuple[int, int], path: Path) -> None:
    from serve_app.models.folio.synthetic.photograph import draw_photograph

    image = draw_photograph(seed, width=size[0], height=size[1], kind=kind).image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    # Whole or not at all: a file that is there is kept the next time.
    temporary = path.with_suffix(".drawing")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)
