"""The weights of a model: their place, and whether they are the right ones.

A model is one of these: a file that the configuration names (``model_files``), the bundled
``folio``, or a model of rembg's whose weights are on this machine (``foreedge models fetch``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig, ModelChecksumMismatch, ModelUnavailable
from serve_app.models.facts import CUSTOM_MODEL_FACTS, MODEL_FACTS, NOT_SERVED, ModelFacts

BUNDLED_MODEL = "folio"
"""The model whose weights are part of the package."""

_HOMES = (Path("~/.rembg"), Path("~/.u2net"))
"""Folders of rembg's weights: the present one, and that of its earlier versions."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's file, checked."""

    name: str
    """Name of the model."""
    path: Path
    """ONNX file."""
    sha256: str
    """SHA-256 of the file, as hex digits."""
    facts: ModelFacts
    """What the graph expects, and what its answer means."""


def check_model_exists(name: str, config: AppConfig) -> None:
    """Check that a model of this name can be served, without a look at its weights.

    Raises:
        InvalidConfig: The model is unknown, or one of rembg's that is not served.
    """
    if name in config.model_files or name in MODEL_FACTS:
        return
    if name in NOT_SERVED:
        raise InvalidConfig(f"Model {name!r} is not served: {NOT_SERVED[name]}.")
    known = ", ".join(MODEL_FACTS)
    raise InvalidConfig(
        f"Model {name!r} is unknown. Use one of {known}, or add its file to model_files."
    )


def locate_weights(name: str, config: AppConfig) -> Weights:
    """Return the weights of a model that are on this machine.

    Raises:
        InvalidConfig: The model is unknown, or its configured file does not exist.
        ModelChecksumMismatch: The file is not the one of rembg's release.
        ModelUnavailable: The weights are not on this machine.
    """
    check_model_exists(name, config)
    if name in config.model_files:
        path = config.model_files[name]
        if not path.is_file():
            raise InvalidConfig(f"model_files.{name}: {path} is not a file")
        _check_weights_are_inside(name, path)
        # Another file of a known model, for example a quantized one, is used as that model is.
        facts = MODEL_FACTS.get(name, CUSTOM_MODEL_FACTS)
        return Weights(name, path, file_digest(path, "sha256"), facts)
    facts = MODEL_FACTS[name]
    if name == BUNDLED_MODEL:
        with as_file(files("serve_app.models.folio") / "folio.onnx") as path:
            return Weights(name, path, file_digest(path, "sha256"), facts)
    found = find_downloaded_file(name, config)
    if found is None:
        missing = ModelUnavailable(
            f"The weights of {name} are not on this machine. Run 'foreedge models fetch {name}', "
            f"put {name}.onnx into {models_home(config)}, or serve {BUNDLED_MODEL}, which is "
            f"bundled."
        )
        missing.lasting = True
        raise missing
    check_digest(found, name)
    return Weights(name, found, file_digest(found, "sha256"), facts)


def _check_weights_are_inside(name: str, path: Path) -> None:
    """Check that an ONNX file has its weights in it.

    The digest of the file stands for its weights: in the keys of results, and in the gate's
    records. Weights in a file of their own could change without it.

    Raises:
        InvalidConfig: The weights are in another file.
    """
    # Lazy: commands that only name models start without them.
    import onnx
    from onnx.external_data_helper import uses_external_data

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # noqa: BLE001 - the class of protobuf's errors has no types
        # What loads the model says what is wrong with it.
        return
    outside = next((item.name for item in graph.initializer if uses_external_data(item)), None)
    if outside is not None:
        raise InvalidConfig(
            f"model_files.{name}: {path} keeps its weights in another file (first {outside!r}). "
            f"Write one file of both: python -c \"import onnx; onnx.save(onnx.load('{path}'), "
            f"'{path.with_suffix('')}-whole.onnx')\""
        )


def missing_weights(config: AppConfig) -> list[str]:
    """Return the known models of a configuration whose weights are not on this machine."""
    return [
        name
        for name in config.served_models
        if name in MODEL_FACTS
        and name not in config.model_files
        and name != BUNDLED_MODEL
        and find_downloaded_file(name, config) is None
    ]


def models_home(config: AppConfig) -> Path:
    """Return the folder of rembg's weights, which need not exist."""
    return (config.u2net_home or _HOMES[0]).expanduser()


def find_downloaded_file(name: str, config: AppConfig) -> Path | None:
    """Return the file that rembg would find for a model, or None."""
    homes = [config.u2net_home] if config.u2net_home else _HOMES
    for home in homes:
        folder = home.expanduser()
        for path in (folder / "models" / name / f"{name}.onnx", folder / f"{name}.onnx"):
            if path.is_file():
                return path
    return None


def check_digest(path: Path, name: str) -> None:
    """Compare a file with the published digest of a model, if it has one.

    Raises:
        ModelChecksumMismatch: They differ.
    """
    digest = MODEL_FACTS[name].digest
    if digest is None:
        return
    algorithm, _, expected = digest.partition(":")
    found = file_digest(path, algorithm)
    if found != expected:
        raise ModelChecksumMismatch(
            f"{path} is not rembg's release of {name}: its {algorithm} is {found} instead of "
            f"{expected}. Remove the file and run 'foreedge models fetch {name}', or serve it as "
            f"a model of yours with model_files."
        )


def file_digest(path: Path, algorithm: str) -> str:
    """Return the digest of a file as hex digits.

    Args:
        path: File to read.
        algorithm: ``md5`` or ``sha256``.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
