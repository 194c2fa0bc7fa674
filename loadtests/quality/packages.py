"""Packages of Debian that hold images: downloaded and unpacked in a folder, never installed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import ForeedgeError, SourceNotFound


@dataclass(frozen=True, slots=True)
class Package:
    """An unpacked package."""

    name: str
    """Name of the package."""
    version: str
    """Version of the package, as Debian writes it."""
    sha256: str
    """SHA-256 of the package file, as hex digits."""
    folder: Path
    """Folder with the files of the package, below which paths begin with ``usr``."""


def fetch_package(name: str, cache: Path) -> Package:
    """Return a package, downloaded with ``apt-get download`` unless the cache already has it.

    apt checks the checksum of what it downloads. Nothing is installed, and no root is needed.

    Args:
        name: Name of the package.
        cache: Folder that keeps package files and what they unpack to. A package file that was
            copied there is taken as it is.

    Raises:
        SourceNotFound: The package cannot be downloaded or unpacked here.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = sorted(cache.glob(f"{name}_*.deb"))
    if not found:
        _download(name, cache)
        found = sorted(cache.glob(f"{name}_*.deb"))
    if not found:
        raise _unavailable(name, cache, "apt-get wrote no package file")
    file = found[-1]
    fields = _run(["dpkg-deb", "--field", file.name, "Version"], name, cache)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return Package(name, fields.strip(), sha256, _unpack(name, file, cache))


def _download(name: str, cache: Path) -> None:
    """Download a package file into a folder of its own, then move it into the cache."""
    partial = cache / f"{name}.partial"
    partial.mkdir(exist_ok=True)
    _run(["apt-get", "--quiet", "download", name], name, partial, cache)
    for file in partial.glob("*.deb"):
        file.rename(cache / file.name)
    partial.rmdir()


def _unpack(name: str, file: Path, cache: Path) -> Path:
    """Return the folder of a package's files, which is complete once it has its final name."""
    folder = cache / file.stem
    if not folder.is_dir():
        partial = cache / f"{file.stem}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        _run(["dpkg-deb", "--extract", file.name, partial.name], name, cache)
        partial.rename(folder)
    return folder


def _run(command: list[str], name: str, folder: Path, cache: Path | None = None) -> str:
    """Run a command in a folder and return what it printed."""
    cache = cache or folder
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise _unavailable(name, cache, f"this machine has no {command[0]}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise _unavailable(name, cache, lines[-1] if lines else f"{command[0]} failed")
    return done.stdout


def _unavailable(name: str, cache: Path, reason: str) -> ForeedgeError:
    return SourceNotFound(
        f"the Debian package {name} is unavailable: {reason}. Run `apt-get update` as root on a "
        f"Debian with network, or copy the package file ({name}_*.deb) into {cache}"
    )
