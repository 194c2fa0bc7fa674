"""What a run is made of: photographs under a prefix, in a local folder, or named by a program.

Each is read as a stream, since there may be millions of them. ``manifest_file`` and ``inventory``
have two more.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from serve_app.errors import InvalidConfig

MEDIA_TYPE_BY_EXTENSION = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".mpo": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
}
"""Media type by the extension of an image's name; other names are not taken for images."""


class Entry(NamedTuple):
    """One photograph of a run."""

    bucket: str
    key: str
    etag: str | None = None
    version_id: str | None = None
    job_id: str | None = None
    """None: made from the run and the object."""


class ImageSource(ABC):
    """The photographs of a run, as a stream that can be read again."""

    digest: str | None = None
    """sha256 of what names them; None where that is a place, whose content may change."""
    total: int | None = None
    """Their number, where it is known without reading them all."""
    ordered: bool = False
    """Whether they come in the order of their keys, each once: then reading can go on after a
    key. Others are the same from the beginning each time, and may name one twice."""

    def __init__(self) -> None:
        self.skipped = 0
        """Names that are not an image's, in the latest reading."""

    @abstractmethod
    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """Yield them; blocks.

        Args:
            after: The key of the last one that is known; only where ``ordered``.
        """


class ListedImages(ImageSource):
    """Photographs that a program names."""

    def __init__(self, entries: Iterable[Entry], *, ordered: bool = False) -> None:
        super().__init__()
        self._entries = list(entries)
        self.ordered = ordered

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """See Photographs."""
        return (entry for entry in self._entries if after is None or entry.key > after)


def is_image(name: str) -> bool:
    """Return whether a name has an image's extension."""
    return os.path.splitext(name)[1].lower() in MEDIA_TYPE_BY_EXTENSION  # noqa: PTH122 (keys are not paths)


def parse_s3_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix of ``s3://bucket/prefix``.

    Raises:
        InvalidConfig: It is not such a URL.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise InvalidConfig(f"{url!r} is not an s3://bucket/prefix URL")
    return bucket, prefix
