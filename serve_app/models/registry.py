"""What is known of each model, and where its weights are.

A model is one of these, in order: a file that the configuration names (``model_files``), the
bundled ``folio``, a model of rembg's whose facts are below, or any other model of rembg's, which
is then run by rembg itself.
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
    """What a graph expects and what its answer means."""

    size_px: int
    """Side of the square input."""
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    """Of each channel, on a scale where the image's brightest value is 1."""
    std: tuple[float, float, float] = _IMAGENET_STD
    sigmoid: bool = False
    """The graph's answer is a logit."""
    empty_below: float = 0.0
    """An answer whose maximum is below this has no subject. 0 for rembg's models: rembg stretches
    every answer to the full range, and parity with it forbids to know better."""
    md5: str | None = None
    """Of the file of rembg's release."""


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
"""Facts by name: rembg's session classes say the same, in code. The md5 sums are those that rembg
checks after a download; it does not check a file that is already there, and we do."""

CUSTOM_MODEL_FACTS = ModelFacts(320)
"""Of the files that the configuration names under a name of its own: u2net's contract."""

BUNDLED_MODEL = "folio"


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's file, checked."""

    name: str
    path: Path
    sha256: str
    facts: ModelFacts | None
    """None where only rembg knows how to run it."""


def check_model_exists(name: str, config: AppConfig) -> None:
    """Return if a model of this name can be served; loads no weights.

    Raises:
        InvalidConfig: There is no such model, or it is a service on the network.
    """
    if name not in config.model_files and name not in MODEL_FACTS:
        rembg_session_class(name)


def locate_weights(name: str, config: AppConfig) -> Weights:
    """Return a model's weights, downloaded through rembg where they are not on this machine.

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
        # Another file for a model that is known (quantized, for example) is used as that model is.
        return Weights(
            name, path, _digest(path, "sha256"), MODEL_FACTS.get(name, CUSTOM_MODEL_FACTS)
        )
    if name == BUNDLED_MODEL:
        with as_file(files("serve_app.models.folio") / "folio.onnx") as path:
            return Weights(name, path, _digest(path, "sha256"), MODEL_FACTS[name])
    facts = MODEL_FACTS.get(name)
    path = find_downloaded_file(name, config) or _download(name, config)
    if facts is not None and facts.md5 is not None and (found := _digest(path, "md5")) != facts.md5:
        raise ModelChecksumMismatch(
            f"{path} is not rembg's release of {name}: its md5 is {found} instead of "
            f"{facts.md5}; remove the file, and it is downloaded anew"
        )
    return Weights(name, path, _digest(path, "sha256"), facts)


def rembg_session_class(name: str) -> Any:
    """Return rembg's session class of a model.

    Imports rembg, which takes seconds, and minutes for the first time (pymatting compiles): a
    replica that serves a model with facts never comes here, unless it downloads the weights.

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
        raise InvalidConfig(f"model {name!r} sends photographs to a service: it is not served")
    return session_class


def find_downloaded_file(name: str, config: AppConfig) -> Path | None:
    """Return the file that rembg would find, without an import of rembg."""
    homes = [config.u2net_home] if config.u2net_home else [Path("~/.rembg"), Path("~/.u2net")]
    for home in homes:
        folder = home.expanduser()
        for path in (folder / "models" / name / f"{name}.onnx", folder / f"{name}.onnx"):
            if path.is_file():
                return path
    return None


def _download(name: str, config: AppConfig) -> Path:
    if config.u2net_home is not None:
        # The only way in which rembg can be told.
        os.environ["U2NET_HOME"] = str(config.u2net_home)
    session_class = rembg_session_class(name)
    try:
        return Path(session_class.download_models())
    except ValueError as error:
        # pooch's word for a digest that differs.
        raise ModelChecksumMismatch(f"download of {name}: {error}") from error
    except OSError as error:
        raise ModelUnavailable(
            f"the weights of {name} could not be downloaded: {error}; where there is no network, "
            f"put {name}.onnx into the folder that U2NET_HOME names"
        ) from error


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
