"""Files below one folder, which no name and no symbolic link leads out of.

A path is first resolved, and must lie below the folder then. It is opened from the folder down, one
part at a time, and no step follows a link. A part that becomes a link in the meantime is therefore
refused, and not followed.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, the opening of a named pipe would wait for somebody who writes to it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Parts = tuple[str, ...]
"""Path below the folder: names without slashes, none of them empty, ``.`` or ``..``."""


class LeadsOut(OSError):
    """A symbolic link leads a path out of its folder, or in a circle."""


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """An entry of a folder."""

    name: str
    """Name within the folder."""
    folder: Parts | None
    """Resolved path if the entry is a folder. None if it is a file."""


class RootedFiles:
    """Files below one folder. Threads and processes can share it.

    Every method raises ``OSError`` as the operating system does, and ``LeadsOut``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def reading(self, parts: Parts) -> Iterator[BinaryIO]:
        """Open a regular file.

        Raises:
            FileNotFoundError: There is no such file, or it is a folder, a pipe or a device.
        """
        *parents, name = self.resolve(parts)
        with self._opened(tuple(parents)) as folder:
            descriptor = os.open(name, _READ, dir_fd=folder)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileNotFoundError(f"{'/'.join(parts)} is not a regular file")
            yield file

    def write(self, parts: Parts, data: bytes, *, replace: bool) -> None:
        """Write a file at once: a reader sees all of it or nothing.

        Args:
            parts: Path of the file. Its folders are created.
            data: Content of the file.
            replace: Whether an existing file is replaced.

        Raises:
            FileExistsError: The file exists, and ``replace`` is false.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        # The last part is not resolved: a link there is replaced, or is what exists already.
        parents = self.resolve(parts[:-1])
        temporary = f".writing-{uuid.uuid4().hex}"
        with self._opened(()) as root, self._opened(parents, create=True) as folder:
            try:
                with os.fdopen(os.open(temporary, _CREATE, 0o600, dir_fd=root), "wb") as file:
                    file.write(data)
                if replace:
                    os.replace(temporary, parts[-1], src_dir_fd=root, dst_dir_fd=folder)
                else:
                    # A hard link fails if the name exists, unlike a rename.
                    os.link(temporary, parts[-1], src_dir_fd=root, dst_dir_fd=folder)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=root)

    def remove(self, parts: Parts) -> None:
        """Remove a file, or the symbolic link that has its name.

        Raises:
            FileNotFoundError: There is no such file.
        """
        *parents, name = parts
        with self._opened(self.resolve(tuple(parents))) as folder:
            os.unlink(name, dir_fd=folder)

    def entries(self, folder: Parts) -> list[FolderEntry]:
        """Return the folders and regular files in a folder, which must be a resolved path.

        Links that lead out, in a circle or nowhere are left out, as are pipes and devices.
        """
        found = []
        with self._opened(folder) as descriptor, os.scandir(descriptor) as items:
            for item in items:
                place = (*folder, item.name)
                if item.is_symlink():
                    try:
                        place = self.resolve(place)
                    except LeadsOut:
                        continue
                if item.is_dir():
                    found.append(FolderEntry(item.name, place))
                elif item.is_file():
                    found.append(FolderEntry(item.name, None))
        return found

    def resolve(self, parts: Parts) -> Parts:
        """Return the same path without symbolic links.

        Raises:
            LeadsOut: The path lies outside of the folder, or goes in a circle.
        """
        root = os.path.realpath(self._root)
        real = os.path.realpath(Path(root, *parts))
        if real == root:
            return ()
        within = root.rstrip("/") + "/"
        if not real.startswith(within):
            raise LeadsOut(f"{'/'.join(parts)} leads out of {root}")
        # Only a circle leaves a link in a resolved path.
        if Path(real).is_symlink():
            raise LeadsOut(f"{'/'.join(parts)} leads in a circle")
        return tuple(real.removeprefix(within).split("/"))

    @contextmanager
    def _opened(self, parts: Parts, *, create: bool = False) -> Iterator[int]:
        """Open a folder, whose path must be resolved, and create it if need be."""
        descriptor = os.open(os.path.realpath(self._root), _FOLDER)
        try:
            for part in parts:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                child = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = child
            yield descriptor
        finally:
            os.close(descriptor)
