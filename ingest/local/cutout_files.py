"""Files of cut-outs: their names, and how they are written."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def file_names(images: Iterable[str], extension: str = "png") -> list[str]:
    """Return a file name for the cut-out of each image.

    Args:
        images: Paths of the images within their folder. Their suffix becomes that of the cut-out,
            unless this would give two images the same name: then it is appended.
        extension: Suffix of the cut-outs, without a dot.
    """
    # Strings: a million paths would take a gigabyte.
    paths = list(images)
    plain = Counter(map(_without_suffix, paths))
    appended = {f"{path}.{extension}" for path in paths}
    names = []
    for path in paths:
        stem = _without_suffix(path)
        name = f"{stem}.{extension}"
        # a.jpg.jpg would become what is appended to a.jpg.
        unique = plain[stem] == 1 and name not in appended
        names.append(name if unique else f"{path}.{extension}")
    return names


def _without_suffix(path: str) -> str:
    """Return a path without what ``PurePosixPath.suffix`` is."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return path[: dot - len(name)] if 0 < dot < len(name) - 1 else path


def write_cutout(path: Path, data: bytes) -> None:
    """Write a cut-out and the folders that it needs. A file that has its name is complete.

    Raises:
        OSError: The file cannot be written. Nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own length: that of a cut-out may be as long as the file system allows.
    unfinished = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
