"""The image files of a local folder, and their upload to the object store."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ingest.sources.base import MEDIA_TYPE_BY_EXTENSION, count_skipped, is_image, kind_of
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectInfo, ObjectStore

_UPLOAD_THREADS = 8
_UNKNOWN_MEDIA_TYPE = "application/octet-stream"
_NAMED_FILES = 3
_LINKED_FOLDER = "linked folder"
_UNREADABLE_FOLDER = "unreadable folder"

FOLDERS_LEFT_OUT = (_LINKED_FOLDER, _UNREADABLE_FOLDER)
"""Kinds of folders in a folder whose files nobody has counted."""


@dataclass(frozen=True, slots=True)
class FileUpload:
    """A local file and the object that it is uploaded to."""

    path: Path
    bucket: str
    key: str


def image_files(folder: Path, *, all_names: bool = False) -> tuple[list[Path], Counter[str]]:
    """Return the image files in a folder and below, and the number of the others by their kind.

    Links to folders and links to files outside the folder are not followed. A link to a folder and
    a folder that cannot be read are counted by the kinds in ``FOLDERS_LEFT_OUT``.

    Args:
        folder: The folder.
        all_names: Whether files without the extension of an image are images too.

    Raises:
        InvalidConfig: The folder itself cannot be read.
    """
    root = folder.resolve()
    images: list[Path] = []
    skipped: Counter[str] = Counter()

    def on_unreadable(error: OSError) -> None:
        if error.filename is not None and Path(error.filename) == folder:
            raise InvalidConfig(f"the folder {folder} cannot be read: {error.strerror}") from error
        count_skipped(skipped, _UNREADABLE_FOLDER)

    for parent, folders, names in os.walk(folder, onerror=on_unreadable):
        folders.sort()
        for name in folders:
            # As os.walk asks. A Path raises where the folder cannot be looked at.
            if os.path.islink(os.path.join(parent, name)):  # noqa: PTH114, PTH118
                count_skipped(skipped, _LINKED_FOLDER)
        for name in sorted(names):
            path = Path(parent, name)
            kind = kind_of(name) if not is_image(name, all_names=all_names) else _flaw(path, root)
            if kind is None:
                images.append(path)
            else:
                count_skipped(skipped, kind)
    return images, skipped


def _flaw(path: Path, root: Path) -> str | None:
    """Return why a file with the name of an image is none of the folder ``root``, or None."""
    try:
        # First, since a link to itself cannot be resolved.
        if not path.is_file():
            return "without content of its own"
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            return "linked to outside the folder"
    except OSError:
        # Its folder can be listed, and gives nothing away of what is in it.
        return "that cannot be read"
    return None if _has_utf8_name(path) else "with a name that is not UTF-8"


def plan_uploads(
    folder: Path, images: Iterable[Path], bucket: str, prefix: str
) -> list[FileUpload]:
    """Return the object that each image file of a folder is uploaded to."""
    return [
        FileUpload(path, bucket, prefix + path.relative_to(folder).as_posix()) for path in images
    ]


def missing_uploads(store: ObjectStore, files: list[FileUpload], prefix: str) -> list[FileUpload]:
    """Return the files that an earlier upload has not brought to their objects. Blocks.

    The objects are found by one listing. A file counts as uploaded under the conditions of ``aws s3
    sync``: its object has the same size, and was not written before the file was changed.

    Args:
        store: The object store.
        files: The files and their objects, which are in one bucket.
        prefix: Prefix of the keys of these objects.
    """
    missing = {file.key: file for file in files}
    for item in store.list(files[0].bucket, prefix):
        file = missing.get(item.key)
        if file is not None and _is_copy(item, file.path):
            del missing[item.key]
    return list(missing.values())


def _is_copy(item: ObjectInfo, path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        # The upload says why this file cannot be read.
        return False
    written_at = item.written_at
    return (
        item.size == found.st_size
        and written_at is not None
        and written_at.timestamp() >= found.st_mtime
    )


def upload_files(
    store: ObjectStore, files: list[FileUpload], on_uploaded: Callable[[int], None] = lambda _: None
) -> None:
    """Upload local files, several at a time. Blocks.

    A file that cannot be read does not keep the others from being uploaded.

    Args:
        store: The object store to write to.
        files: The files and their objects.
        on_uploaded: Function that is called with 1 after each file.

    Raises:
        InvalidConfig: Files cannot be read. All others are uploaded.
        ForeedgeError: The store refuses or does not answer. Some files may be uploaded.
    """
    unreadable: list[str] = []

    def put(file: FileUpload) -> int:
        try:
            data = file.path.read_bytes()
        except OSError as error:
            unreadable.append(f"{file.path}: {error.strerror}")
            return 0
        media_type = MEDIA_TYPE_BY_EXTENSION.get(file.path.suffix.lower(), _UNKNOWN_MEDIA_TYPE)
        store.put(file.bucket, file.key, data, media_type)
        return 1

    with ThreadPoolExecutor(_UPLOAD_THREADS, "upload") as pool:
        try:
            for number in pool.map(put, files):
                on_uploaded(number)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if unreadable:
        more = f"; and {len(unreadable) - _NAMED_FILES:,} more" * (len(unreadable) > _NAMED_FILES)
        raise InvalidConfig(
            f"{len(unreadable):,} of {len(files):,} files cannot be read, and the others are "
            f"uploaded. Make them readable, or move them out of the folder: "
            f"{'; '.join(sorted(unreadable)[:_NAMED_FILES])}{more}"
        )


def _has_utf8_name(path: Path) -> bool:
    # A file name may consist of any bytes, but a key is UTF-8.
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
