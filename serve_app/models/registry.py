"""The facts about each model, and the place of its weights.

A model is the first of these that has its name: a file from the configuration (``model_files``),
the bundled ``folio``, a rembg model in ``MODEL_FACTS``, or any other model of rembg's, which rembg
itself then runs.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig, ModelChecksumMismatch, ModelUnavailable

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The input that a model expects, and the meaning of its output."""

    size_px: int
    """Side of the square input, in pixels."""
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    """Mean of each channel, on a scale on which the image's brightest value is 1."""
    std: tuple[float, float, float] = _IMAGENET_STD
    """Standard deviation of each channel, on the same scale."""
    sigmoid: bool = False
    """Whether the output is a logit, so that its sigmoid is the mask."""
    empty_below: float = 0.0
    """Lowest maximum of an output that shows a subject.

    It is 0 for rembg's models. rembg stretches every output to the full range, and parity with it
    does not allow to call a mask empty.
    """
    md5: str | None = None
    """MD5 of the file in rembg's release, as hexadecimal digits."""


MODEL_FACTS: dict[str, ModelFacts] = {
    "folio": ModelFacts(320, empty_below=0.5),
    "u2net": ModelFacts(320, md5="60024c5c889badc19c04ad937298a77b"),
    "u2netp": ModelFacts(320, md5="8e83ca70e441ab06c318d82300c84806"),
    "silueta": ModelFacts(320, md5="55e59e0d8062d2f5d013f4725ee84782"),
    "isnet-general-use": ModelFacts(
        1024, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), md5="fc16ebd8b0c10d971d3513d564d01e29"
    ),
    "birefnet-general": ModelFacts(1024, sigmoid=True, md5="7a35a0141cbbc80de11d9c9a28f52697"),
    "birefnet-general-lite": ModelFacts(1024, sigmoid=True, md5="4fab47adc4ff364be1713e97b7e66334"),
}
"""Facts by model name, from the code of rembg's session classes.

rembg checks the MD5 after a download only. Here it is checked for a file that is already on disk
as well.
"""

CUSTOM_MODEL_FACTS = ModelFacts(320)
"""Facts of a configured file whose name is not in ``MODEL_FACTS``. They are those of u2net."""

BUNDLED_MODEL = "folio"
"""Name of the model that is part of this package."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The file of a model, which has passed its checks."""

    name: str
    """Name of the model."""
    path: Path
    """ONNX file."""
    sha256: str
    """SHA-256 of the file, as hexadecimal digits."""
    facts: ModelFacts | None
    """Facts about the model, or None if rembg must run it."""


def check_model_exists(name: str, config: AppConfig) -> None:
    """Check that a model of this name can be served, without loading its weights.

    Args:
        name: Name of the model.
        config: Settings of the application.

    Raises:
        InvalidConfig: There is no such model, or it is a service on the network.
    """
    if name not in config.model_files and name not in MODEL_FACTS:
        rembg_session_class(name)


def locate_weights(name: str, config: AppConfig) -> Weights:
    """Return the weights of a model, and download them through rembg if they are not on disk.

    Args:
        name: Name of the model.
        config: Settings of the application.

    Raises:
        InvalidConfig: There is no such model, or its configured file does not exist.
        ModelChecksumMismatch: The file is not the one of rembg's release.
        ModelUnavailable: The download failed.
    """
    check_model_exists(name, config)
    if name in config.model_files:
        path = config.model_files[name]
        if not path.is_file():
            raise InvalidConfig(f"model_files.{name}: {path} is not a file")
        # A configured file for a known model, such as a quantized one, is used by that model's
        # facts.
        facts = MODEL_FACTS.get(name, CUSTOM_MODEL_FACTS)
        return Weights(name, path, _digest(path, "sha256"), facts)
    if name == BUNDLED_MODEL:
        with as_file(files("serve_app.models.folio") / "folio.onnx") as path:
            return Weights(name, path, _digest(path, "sha256"), MODEL_FACTS[name])
    return _locate_rembg_weights(name, config)


def rembg_session_class(name: str) -> Any:
    """Return rembg's session class for a model.

    It imports rembg, which takes seconds, and minutes for the first time on a machine, while
    Numba compiles pymatting. A replica that serves a model with known facts only comes here if it
    must download the weights.

    Args:
        name: Name of the model.

    Raises:
        InvalidConfig: rembg has no such model, or it is a service on the network.
    """
    from rembg.sessions import sessions

    session_class = sessions.get(name)
    if session_class is None:
        known = ", ".join(sorted({*MODEL_FACTS, *sessions}))
        raise InvalidConfig(
            f"model {name!r} is unknown. Use one of {known}, or add its file to model_files"
        )
    if not session_class.is_local():
        raise InvalidConfig(
            f"model {name!r} cannot be served, because it sends images to a service on the network"
        )
    return session_class


def find_downloaded_file(name: str, config: AppConfig) -> Path | None:
    """Return the file that rembg would use, or None if it is not on disk. rembg is not imported.

    Args:
        name: Name of the model.
        config: Settings of the application.
    """
    homes = [config.u2net_home] if config.u2net_home else [Path("~/.rembg"), Path("~/.u2net")]
    for home in homes:
        folder = home.expanduser()
        for path in (folder / "models" / name / f"{name}.onnx", folder / f"{name}.onnx"):
            if path.is_file():
                return path
    return None


def _locate_rembg_weights(name: str, config: AppConfig) -> Weights:
    facts = MODEL_FACTS.get(name)
    path = find_downloaded_file(name, config) or _download(name, config)
    if facts is not None and facts.md5 is not None and (found := _digest(path, "md5")) != facts.md5:
        raise ModelChecksumMismatch(
            f"{path} is not rembg's release of {name}: its MD5 is {found} instead of "
            f"{facts.md5}. Remove the file to download it again"
        )
    return Weights(name, path, _digest(path, "sha256"), facts)


def _download(name: str, config: AppConfig) -> Path:
    if config.u2net_home is not None:
        # rembg reads the folder from the environment alone.
        os.environ["U2NET_HOME"] = str(config.u2net_home)
    session_class = rembg_session_class(name)
    try:
        return Path(session_class.download_models())
    except ValueError as error:
        # pooch raises this if the digest of the download differs.
        raise ModelChecksumMismatch(f"the download of {name} failed: {error}") from error
    except OSError as error:
        raise ModelUnavailable(
            f"the weights of {name} could not be downloaded: {error}. Without a network, put "
            f"{name}.onnx into the folder that U2NET_HOME names"
        ) from error


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
