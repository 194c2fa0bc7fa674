"""The folder of a demonstration: what is removed from it, and what is never touched."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from serve_app.errors import InvalidConfig

MARK = ".foreedge-demo"
"""File that only a demonstration writes, before anything else. ``foreedge report`` does not."""

MOST_IMAGES = 10_000
"""Most images of a demonstration. Its local SQS looks at every message whenever it is asked for
some, so that the time of a run grows with the square of their number."""

_MEMORY_SHARE = 0.5
"""Share of the memory that images and cut-outs may take. Ray and the replicas need the rest."""

_MOST_HELD = 5_242_880 - 1_024
"""Bytes of an object that the local S3 holds in memory at most. A larger one is a temporary file
(``S3_UPLOAD_PART_MIN_SIZE`` of moto)."""

_PNG_RATIO = 9
"""Bytes of a cut-out in times of those of its image, at most: as PNG files in which nothing is
removed, our six photographs have 4.8 to 9.2 times the bytes of the JPEG files."""

_FOLDERS = ("cutouts", "masks", "photographs")
_FILES = ("env", "report.html", "report.json")
_MARK_OF_OURS = (
    "The next foreedge demo with this --out removes the folders "
    f"{', '.join(_FOLDERS)} here. Keep no images of your own in them.\n"
)
_OWN = "Cut-outs of the images in "
"""Beginning of the mark of a folder whose results are the user's own, before the images' path."""


def check_fits(files: Sequence[Path], memory: int, most_images: int = MOST_IMAGES) -> None:
    """Check that a demonstration can hold the images and their cut-outs in its local S3.

    Args:
        files: The images.
        memory: Memory of the machine, in bytes.
        most_images: Most images that are taken.

    Raises:
        InvalidConfig: There are too many images, or too many bytes.
    """
    sizes = [file.stat().st_size for file in files]
    needed = sum(min(size, _MOST_HELD) + min(_PNG_RATIO * size, _MOST_HELD) for size in sizes)
    if len(files) > most_images or needed > memory * _MEMORY_SHARE:
        raise InvalidConfig(
            f"{len(files):,} images of {sum(sizes) / 1e9:.1f} GB are too many for a demonstration, "
            f"whose SQS and S3 are in memory. It takes {most_images:,} images at most, and half of "
            f"the {memory / 1e9:.1f} GB of memory, of which these and their cut-outs may need "
            f"{needed / 1e9:.1f} GB. Start 'foreedge serve', which takes any number of them from "
            "'foreedge folder IMAGES CUTOUTS' in another terminal"
        )


def results_folder(images: Path | None) -> Path:
    """Return the folder of a demonstration's results if the user names none.

    Args:
        images: Folder of the user's images. None: photographs of ours.
    """
    if images is None:
        return Path("out", "demo")
    # Apart from the folders of ours in out/. A whole file system has no name.
    return Path("out", "images", images.resolve().name or "root")


def prepare_demo_folder(out: Path, images: Path | None = None) -> None:
    """Create the folder of a demonstration, or make room in that of an earlier one.

    The results of our photographs are removed. Those of the user's own images stay, and a new
    demonstration of the same images replaces each cut-out once the new one is complete.

    Args:
        out: The folder.
        images: Folder of the user's images. None: photographs of ours.

    Raises:
        InvalidConfig: The folder holds the results of other images of the user, or something with
            the name of a result in a folder that no demonstration has marked. Everything stays as
            it is.
    """
    mark, text = out / MARK, _mark_text(images)
    found = [out / name for name in (*_FOLDERS, *_FILES) if (out / name).exists()]
    if mark.is_file():
        earlier = mark.read_text("utf-8", "surrogateescape")
        if earlier.startswith(_OWN):
            if earlier != text:
                raise InvalidConfig(
                    f"--out: {out} has results of other images ({earlier.strip().rstrip('.')}), "
                    "and nothing was changed. Choose another --out (make demo OUT=…), or remove "
                    f"these: rm -r {shlex.join(map(str, [mark, *found]))}"
                )
            _refuse_links(out)
            return
        _refuse_links(out)
        for folder in found:
            if folder.is_dir():
                shutil.rmtree(folder)
    elif found:
        raise InvalidConfig(
            f"--out: {out} has no file {MARK}, which a demonstration writes there, so that what is "
            "in it may be yours, and nothing was changed. Choose another --out (make demo OUT=…), "
            "or, if a demonstration of an earlier version made it: "
            f"rm -r {shlex.join(map(str, found))}"
        )
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(text, encoding="utf-8", errors="surrogateescape")


def _mark_text(images: Path | None) -> str:
    return f"{_OWN}{images.resolve()}.\n" if images else _MARK_OF_OURS


def _refuse_links(out: Path) -> None:
    for folder in (out / name for name in _FOLDERS):
        if folder.is_symlink():
            raise InvalidConfig(
                f"--out: {folder} is a link, and its target may be yours. Remove the link, or "
                "choose another --out, which may be a link itself"
            )
