"""The image files of a local folder, and their upload to the object store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ingest.sources.base import MEDIA_TYPE_BY_EXTENSION, is_image
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectStore

_UPLOAD_THREADS = 8
_UNKNOWN_MEDIA_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class FileUpload:
    """A local file and the object that it is uploaded to."""

    path: Path
    bucket: str
    key: str


def image_files(folder: Path, *, all_names: bool = False) -> tuple[list[Path], int]:
    """Return the image files in a folder and below, and the number of other files.

    Links to folders and links to files outside the folder are not followed.

    Args:
        folder: The folder.
        all_names: Whether files without the extension of an image are images too.
    """
    root = folder.resolve()
    images: list[Path] = []
    skipped = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            inside = not path.is_symlink() or path.resolve().is_relative_to(root)
            if (
                inside
                and is_image(name, all_names=all_names)
                and path.is_file()
                and _has_utf8_name(path)
            ):
                images.append(path)
            else:
                skipped += 1
    return images, skipped


def plan_uploads(
    folder: Path, images: Iterable[Path], bucket: str, prefix: str
) -> list[FileUpload]:
    """Return the object that each image file of a folder is uploaded to."""
    return [
        FileUpload(path, bucket, prefix + path.relative_to(folder).as_posix()) for path in images
    ]


def upload_files(
    store: ObjectStore, files: list[FileUpload], on_uploaded: Callable[[int], None] = lambda _: None
) -> None:
    """Upload local files, several at a time. Blocks.

    Args:
        store: The object store to write to.
        files: The files and their objects.
        on_uploaded: Function that is called with 1 after each file.

    Raises:
        InvalidConfig: A file cannot be read.
    """

    def put(file: FileUpload) -> None:
        try:
            data = file.path.read_bytes()
        except OSError as error:
            raise InvalidConfig(f"cannot read {file.path}: {error.strerror}") from error
        media_type = MEDIA_TYPE_BY_EXTENSION.get(file.path.suffix.lower(), _UNKNOWN_MEDIA_TYPE)
        store.put(file.bucket, file.key, data, media_type)

    with ThreadPoolExecutor(_UPLOAD_THREADS, "upload") as pool:
        try:
            for _ in pool.map(put, files):
                on_uploaded(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _has_utf8_name(path: Path) -> bool:
    # A file name may consist of any bytes, but a key is UTF-8.
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
