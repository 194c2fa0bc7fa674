"""A folder of images that the user names, and what is left out of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ingest.sources.folder import FOLDERS_LEFT_OUT, image_files
from ingest.units import counted
from serve_app.errors import InvalidConfig

_SHOWN_KINDS = 8


def own_images(
    images: Path, out: Path, *, all_names: bool = False
) -> tuple[list[Path], Counter[str]]:
    """Return the image files of a folder, and the number of the others by their kind.

    Args:
        images: The folder.
        out: Folder of the results.
        all_names: Whether files without the extension of an image are images too.

    Raises:
        InvalidConfig: It is not a folder, cannot be read, holds no images, or is inside ``out`` or
            around it.
    """
    if not images.is_dir():
        raise InvalidConfig(f"{images} is not a folder of images")
    source, target = images.resolve(), out.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        raise InvalidConfig(
            f"the images in {images} and the results in {out}: one is inside the other, so that "
            "results would be mixed with your images. Choose another folder for the results"
        )
    files, skipped = image_files(images, all_names=all_names)
    if not files:
        left_out = f". {describe_skipped(skipped)}" if skipped else ""
        raise InvalidConfig(f"{images} holds no images{left_out}")
    return files, skipped


def describe_skipped(skipped: Counter[str]) -> str:
    """Return how much was left out, with the most frequent kinds of it.

    Args:
        skipped: Numbers of names that are not those of images, and of ``FOLDERS_LEFT_OUT``.
    """
    files = Counter({kind: n for kind, n in skipped.items() if kind not in FOLDERS_LEFT_OUT})
    kinds = [f"{n:,} {kind}" for kind, n in files.most_common(_SHOWN_KINDS)]
    more = ["…"] * (len(files) > _SHOWN_KINDS)
    folders = [counted(skipped[kind], kind) for kind in FOLDERS_LEFT_OUT if kind in skipped]
    parts = []
    if files:
        parts.append(
            f"{counted(files.total(), 'other file')} skipped: {', '.join([*kinds, *more])}"
        )
    if folders:
        parts.append(f"Not looked into: {', '.join(folders)}")
    return ". ".join(parts)
