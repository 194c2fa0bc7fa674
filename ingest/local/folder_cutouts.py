"""The cut-outs of a folder's images, made by a server, as files in another folder."""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from ingest.local.cutout_client import CutoutClient
from ingest.local.cutout_files import file_names, write_cutout
from serve_app.errors import (
    CheckFailed,
    CorruptImage,
    DeadlineExceeded,
    EmptyImage,
    ForeedgeError,
    ImageTooLarge,
    InternalError,
    ReplicaLost,
    SourceForbidden,
    SourceNotFound,
    StorageRejected,
    TransientError,
    UnsupportedFormat,
)

_OF_THE_IMAGE = (
    CheckFailed,
    CorruptImage,
    DeadlineExceeded,
    EmptyImage,
    ImageTooLarge,
    InternalError,
    UnsupportedFormat,
)
"""Errors that one image has. Others are those of the request or the server, and of all images."""

_OF_THE_PLACE = {
    errno.EEXIST,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
}
"""Numbers of the errors that the name of one cut-out has. A full disk, say, has all of them."""


class Folders(NamedTuple):
    """The folder of the images and that of their cut-outs."""

    images: Path
    out: Path


class CutoutFile(NamedTuple):
    """An image and its cut-out, as paths within their folders. There may be millions."""

    image: str
    cutout: str


class ImageEnd(NamedTuple):
    """How the work on an image ended."""

    image: str
    error: ForeedgeError | None
    """None if the cut-out is written."""


def plan_cutouts(folder: Path, images: Iterable[Path], extension: str) -> list[CutoutFile]:
    """Return the files of the cut-outs of a folder's images, in the same subfolders.

    Args:
        folder: Folder of the images.
        images: The image files.
        extension: Suffix of the cut-outs, without a dot.
    """
    names = [path.relative_to(folder).as_posix() for path in images]
    return list(map(CutoutFile, names, file_names(names, extension)))


def missing_cutouts(folders: Folders, files: Iterable[CutoutFile]) -> list[CutoutFile]:
    """Return the files that are not there, or are older than their images."""
    return [file for file in files if not _is_there(folders, file)]


def _is_there(folders: Folders, file: CutoutFile) -> bool:
    try:
        found = (folders.out / file.cutout).stat()
        image = (folders.images / file.image).stat()
    except OSError:
        # The work on the image says why it cannot be read.
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime >= image.st_mtime


def cut_out_files(
    client: CutoutClient,
    folders: Folders,
    files: Iterable[CutoutFile],
    requests: int,
    stopping: Callable[[int], None],
) -> Generator[ImageEnd, None, None]:
    """Make cut-outs, several at a time, and yield how each ended. Blocks.

    Args:
        client: The client.
        folders: The folders of the files.
        files: The images and the files of their cut-outs.
        requests: Number of images that the server has at a time.
        stopping: Called with the number of images whose answers are awaited still, if the work ends
            before its time.

    Raises:
        ForeedgeError: The server refuses what all images have in common, or takes none.
        OSError: No cut-out can be written: the disk is full, say.
    """
    with ThreadPoolExecutor(requests, "cut-out") as pool:
        running: set[Future[ImageEnd]] = set()
        try:
            for file in files:
                running.add(pool.submit(_cut_out, client, folders, file))
                if len(running) == requests:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (each.result() for each in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        except BaseException:
            stopping(client.stop())
            raise


def _cut_out(client: CutoutClient, folders: Folders, file: CutoutFile) -> ImageEnd:
    begun_at = time.monotonic()
    try:
        data = client.cut_out(folders.images / file.image)
    except _OF_THE_IMAGE as error:
        return ImageEnd(file.image, error)
    except TransientError as error:
        # A server that takes other images meanwhile has a reason to refuse this one. One that has
        # lost each replica with this image, and nothing else to do, is asked whether it is there.
        others_taken = client.answered_at >= begun_at
        if not others_taken and not (isinstance(error, ReplicaLost) and client.answers()):
            raise
        return ImageEnd(file.image, error)
    except OSError as error:
        kind = SourceNotFound if isinstance(error, FileNotFoundError) else SourceForbidden
        return ImageEnd(file.image, kind(f"The file cannot be read: {error.strerror}"))
    return _write(folders.out / file.cutout, file.image, data)


def _write(path: Path, image: str, data: bytes) -> ImageEnd:
    try:
        write_cutout(path, data)
    except OSError as error:
        if error.errno not in _OF_THE_PLACE:
            raise
        reason = f"The cut-out {path} cannot be written: {error.strerror}"
        return ImageEnd(image, StorageRejected(reason))
    return ImageEnd(image, None)
