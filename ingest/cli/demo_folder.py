"""The folder of a demonstration: what is removed from it, and what is never touched."""

from __future__ import annotations

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
        raise InvalidConfig(f"--images: {images} holds no images, and {skipped} other files")
    return files


def prepare_demo_folder(out: Path) -> None:
    """Create the folder of a demonstration, or remove the results of an earlier one from it.

    Raises:
        InvalidConfig: The folder holds something with the name of a result, and no demonstration
            has marked the folder as its own. Everything stays as it is.
    """
    mark = out / MARK
    if mark.is_file():
        for name in _FOLDERS:
            if (out / name).is_dir():
                shutil.rmtree(out / name)
        return
    found = [name for name in (*_FOLDERS, *_FILES) if (out / name).exists()]
    if found:
        raise InvalidConfig(
            f"--out: {out} already holds {', '.join(found)}, and not the file {MARK} that a "
            "demonstration writes there. They may be yours, so nothing was changed. Choose another "
            "--out, or delete them if a demonstration of an earlier version made them"
        )
    out.mkdir(parents=True, exist_ok=True)
    mark.write_text(_MARK_TEXT, encoding="utf-8")
