"""Photographs as JPEG files: synthetic ones with their true masks, and six real ones."""

from __future__ import annotations

import io
import multiprocessing
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from PIL import Image

from serve_app.models.folio.synthetic.photograph import draw_photograph

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
    masks: Path | None = None,
) -> list[Path]:
    """Draw photographs and write them as JPEG files. The same seed draws the same ones.

    Args:
        folder: Folder for the files, which is created if it does not exist.
        count: Number of photographs.
        seed: Seed of the first photograph. The following ones have the following seeds.
        on_made: Function that is called with 1 after each photograph.
        sizes: Widths and heights in pixels, used in turn.
        keep: Whether existing files are kept instead of drawn again.
        masks: Folder for the true masks, PNG files with the names of the photographs, or None.

    Returns:
        The paths of all photographs, in order of their seeds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if masks is not None:
        masks.mkdir(parents=True, exist_ok=True)
    kinds = ["object" if i % _OBJECT_EVERY == _OBJECT_EVERY - 1 else "book" for i in range(count)]
    paths = [folder / f"{kind}-{seed + i:05d}.jpg" for i, kind in enumerate(kinds)]
    wanted = [i for i, path in enumerate(paths) if not (keep and path.is_file())]
    if not wanted:
        return paths
    # Spawned, because the fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
        drawn = pool.map(
            _make_photograph,
            [seed + i for i in wanted],
            [kinds[i] for i in wanted],
            [sizes[i % len(sizes)] for i in wanted],
            [paths[i] for i in wanted],
            [masks and masks / f"{paths[i].stem}.png" for i in wanted],
        )
        for _ in drawn:
            on_made(1)
    return paths


def copy_real_photographs(folder: Path, count: int) -> list[Path]:
    """Copy the first of the real photographs into a folder, and return the paths of the copies.

    ``real_photographs/LICENCES.md`` says where they come from.

    Args:
        folder: Folder for the files, which is created if it does not exist.
        count: Number of photographs. There are no more than six.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("ingest.local") / "real_photographs") as source:
        chosen = sorted(source.glob("*.jpg"))[:count]
        return [Path(shutil.copyfile(path, folder / path.name)) for path in chosen]


def _make_photograph(
    seed: int, kind: Any, size: tuple[int, int], path: Path, mask: Path | None
) -> None:
    drawn = draw_photograph(seed, width=size[0], height=size[1], kind=kind)
    if mask is not None:
        Image.fromarray(drawn.mask).save(mask, "PNG")
    buffer = io.BytesIO()
    Image.fromarray(drawn.image).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    # Renamed when complete, because an existing file may be kept the next time.
    temporary = path.with_suffix(".drawing")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)
