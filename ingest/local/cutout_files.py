"""Files of cut-outs: their names, and how they are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath


def file_names(images: Iterable[str], extension: str = "png") -> list[str]:
    """Return a file name for the cut-out of each image.

    Args:
        images: Paths of the images within their folder. Their suffix becomes that of the cut-out,
            unless this would give two images the same name: then it is appended.
        extension: Suffix of the cut-outs, without a dot.
    """
    paths = [PurePosixPath(image) for image in images]
    plain = Counter(path.with_suffix("") for path in paths)
    appended = {f"{path}.{extension}" for path in paths}
    names = []
    for path in paths:
        name = str(path.with_suffix(f".{extension}"))
        # a.jpg.jpg would become what is appended to a.jpg.
        unique = plain[path.with_suffix("")] == 1 and name not in appended
        names.append(name if unique else f"{path}.{extension}")
    return names


def write_cutout(path: Path, data: bytes) -> None:
    """Write a cut-out and the folders that it needs. A file that has its name is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_bytes(data)
    unfinished.replace(path)
