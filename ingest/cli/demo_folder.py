"""The folder of a demonstration: what is removed from it, and what is never touched."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from ingest.sources.folder import image_files
from serve_app.errors import InvalidConfig

MARK = ".foreedge-demo"
"""File that only a demonstration writes, before anything else. ``foreedge report`` does not."""

_FOLDERS = ("cutouts", "masks", "photographs")
_FILES = ("env", "report.html", "report.json")
_MARK_TEXT = (
    "The next foreedge demo with this --out removes the folders "
    f"{', '.join(_FOLDERS)} here. Keep no images of your own in them.\n"
)


def own_images(images: Path, out: Path) -> list[Path]:
    """Return the image files of a folder that the user named.

    Args:
        images: The folder.
        out: Folder of the demonstration's results.

    Raises:
        InvalidConfig: It is not a folder, holds no images, or is inside ``out`` or around it.
    """
    if not images.is_dir():
        raise InvalidConfig(f"--images: {images} is not a folder")
    source, target = images.resolve(), out.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise InvalidConfig(
            f"--images {images} and --out {out}: one is inside the other, so that results would "
            "be mixed with your images. Choose another --out"
        )
    files, skipped = image_files(images)
    if not files:
        others = skipped.total()
        raise InvalidConfig(f"--images: {images} holds no images, and {others:,} other files")
    return files


def prepare_demo_folder(out: Path) -> None:
    """Create the folder of a demonstration, or remove the results of an earlier one from it.

    Raises:
        InvalidConfig: The folder holds something with the name of a result, and no demonstration
            has marked the folder as its own. Everything stays as it is.
    """
    mark = out / MARK
    if mark.is_file():
        for folder in (out / name for name in _FOLDERS):
            if folder.is_symlink():
                raise InvalidConfig(
                    f"--out: {folder} is a link, and its target may be yours. Remove the link, or "
                    "choose another --out, which may be a link itself"
                )
            if folder.is_dir():
                shutil.rmtree(folder)
        return
    found = [str(out / name) for name in (*_FOLDERS, *_FILES) if (out / name).exists()]
    if found:
        raise InvalidConfig(
            f"--out: {out} has no file {MARK}, which a demonstration writes there, so that what is "
            "in it may be yours, and nothing was changed. Choose another --out (make demo OUT=…), "
            f"or, if a demonstration of an earlier version made it: rm -r {shlex.join(found)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(_MARK_TEXT, encoding="utf-8")
