"""The interface of the sources of a run's images.

Every source is read as a stream, because there may be millions of images.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from serve_app.contracts.own_keys import is_own_key
from serve_app.errors import InvalidConfig

MEDIA_TYPE_BY_EXTENSION = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jfif": "image/jpeg",
    ".mpo": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".avif": "image/avif",
    ".heic": "image/heic",
    ".heif": "image/heif",
}
"""Media types by file extension. A name with another extension is not taken for an image, unless
all names are."""
_EXTENSION = re.compile(r"\.(?=[0-9]*[A-Za-z])[A-Za-z0-9]{1,10}\Z")
_MAX_KINDS = 1_000
_HADOOP_FOLDER = "_$folder$"
"""End of the empty objects by which Hadoop's older file systems mark folders in S3."""


class Entry(NamedTuple):
    """One image of a run."""

    bucket: str
    key: str
    etag: str | None = None
    version_id: str | None = None
    job_id: str | None = None
    """Id of the job. None: it is derived from the run and the object."""
    book_id: int | None = None
    """Id of the book, if the job is one of a collection. Its message then names no object."""
    image_id: int | None = None
    """Id of the image that such a job asks for."""


class ImageSource(ABC):
    """The images of a run, as a stream that can be read repeatedly."""

    digest: str | None = None
    """SHA-256 of the file that lists the images, as hex digits. None if no file does."""
    total: int | None = None
    """Number of images, if it is known without reading all of them."""
    ordered: bool = False
    """Whether the images come in the order of their keys, each once, so that reading can resume
    after a key. Other sources are read from the beginning each time and may repeat an image."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        """Number of names in the latest reading that are not those of images, by ``kind_of``. See
        ``count_skipped``."""
        self.undecodable = 0
        """Number of keys in the latest reading that are not UTF-8 once they are decoded. No object
        can have such a key."""

    @abstractmethod
    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """Yield the images. Blocks.

        Args:
            after: Place after which to resume. Only an ``ordered`` source accepts one.
        """

    def place_of(self, entry: Entry) -> str:
        """Return the place of an image in an ``ordered`` source: its key, if nothing else is."""
        return entry.key


class ListedImages(ImageSource):
    """Images from a list in memory."""

    def __init__(self, entries: Iterable[Entry], *, ordered: bool = False) -> None:
        super().__init__()
        self._entries = list(entries)
        self.ordered = ordered

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """Yield the images. See ``ImageSource``."""
        return (entry for entry in self._entries if after is None or entry.key > after)


def is_image(name: str, *, all_names: bool = False) -> bool:
    """Return whether the name of a file or object is that of an image.

    Args:
        name: Name or key.
        all_names: Whether names without the extension of an image count too.

    Returns:
        False for a folder and for every object that this application wrote, whatever their names.
    """
    if name.endswith(("/", _HADOOP_FOLDER)) or is_own_key(name):
        return False
    return all_names or os.path.splitext(name)[1].lower() in MEDIA_TYPE_BY_EXTENSION  # noqa: PTH122 (keys are not paths)


def kind_of(name: str) -> str:
    """Return what can be said of a name that is not taken for that of an image, for people.

    Returns:
        The extension in small letters, e.g. ``.cr2``, or words if the name has none.
    """
    if is_own_key(name):
        return "of Foreedge"
    extension = _EXTENSION.search(name.rpartition("/")[2].lstrip("."))
    return extension[0].lower() if extension else "without an extension"


def count_skipped(skipped: Counter[str], kind: str) -> None:
    """Count a name that is not that of an image, in bounded memory.

    Args:
        skipped: Numbers of such names by their kind.
        kind: Kind of this one. It becomes "of further kinds" if there are 1,000 others already, as
            with names that end in a random text.
    """
    known = kind in skipped or len(skipped) < _MAX_KINDS
    skipped[kind if known else "of further kinds"] += 1


def leaves_kind_open(name: str) -> bool:
    """Return whether a name has no extension, and so leaves open which kind of file it names.

    What follows the last dot is an extension if it is short and has letters and digits alone, and a
    letter among them. Hidden files have names that say enough, as folders and our own objects do.
    """
    last = name.rpartition("/")[2]
    return (
        is_image(name, all_names=True) and not last.startswith(".") and not _EXTENSION.search(last)
    )


def parse_s3_url(url: str) -> tuple[str, str]:
    """Return the bucket and the prefix of ``s3://bucket/prefix``.

    Raises:
        InvalidConfig: The text is not such a URL.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise InvalidConfig(f"{url!r} is not a URL of the form s3://bucket/prefix")
    return bucket, prefix
