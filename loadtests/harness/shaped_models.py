"""The models of the benchmarks: with true weights if these are here, else with random ones.

``foreedge models fetch u2netp`` brings the true weights of u2netp, which the installation does by
itself. Other models of rembg have to be downloaded from its release. A model whose weights are not
on this machine is replaced by a network of its shape, built from the published architecture
(``networks``), so that it costs what the true one costs.

The weights of such a network are random (with a fixed seed), except in the last layer, which is
fitted by least squares to the masks of synthetic photographs. A mask in one piece costs the PNG
encoder as much as a true one, and noise would cost more. **The masks are not good. Every number
that comes from such a model carries the label "random weights of the same shape"**
(``BenchmarkModel.label``).

``python -m loadtests.harness.shaped_models [NAME ...]`` builds the files and prints their paths.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from PIL import Image

from loadtests.harness import networks
from loadtests.harness.networks import ARCHITECTURES, Architecture, Network
from serve_app.config import AppConfig
from serve_app.imaging.mask import resize_for_model
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.inference import normalize_images
from serve_app.models.registry import BUNDLED_MODEL, find_downloaded_file, locate_weights

FOLDER = Path("out/bench/models")

_BUNDLED, _TRUE, _RANDOM = "bundled", "true weights", "random weights of the same shape"
_FIT_PHOTOGRAPHS, _FIT_GRID, _FIT_RIDGE, _FIT_LOGIT = 16, 40, 1e-2, 4.0


@dataclass(frozen=True, slots=True)
class BenchmarkModel:
    """A model file and the origin of its weights."""

    name: str
    path: Path
    weights: str
    """Origin of the weights, for tables."""

    @property
    def label(self) -> str:
        """Name of the model and, unless it is bundled, origin of its weights."""
        return self.name if self.weights == _BUNDLED else f"{self.name} ({self.weights})"

    @property
    def has_true_weights(self) -> bool:
        """Whether the weights are those that users have, and not random ones."""
        return self.weights != _RANDOM

    @property
    def settings(self) -> dict[str, Any]:
        """Settings for ``AppConfig.load`` that serve the model."""
        if self.name == BUNDLED_MODEL:
            return {"models": [self.name]}
        return {"models": [self.name], "model_files": {self.name: str(self.path.resolve())}}


def benchmark_model(name: str, folder: Path = FOLDER) -> BenchmarkModel:
    """Return a model, with its true weights if they are on this machine, else with random ones.

    Args:
        name: ``folio``, or one of ``ARCHITECTURES``.
        folder: Folder that keeps the models with random weights. Each is built once.

    Raises:
        KeyError: The architecture is unknown.
    """
    config = AppConfig.load()
    if name == BUNDLED_MODEL:
        return BenchmarkModel(name, locate_weights(name, config).path, _BUNDLED)
    architecture = ARCHITECTURES[name]
    if find_downloaded_file(name, config) is not None:
        return BenchmarkModel(name, locate_weights(name, config).path, _TRUE)
    path = folder / f"{name}-shaped-{_code_digest()}.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        onnx.save(build_network(name, architecture).model(), temporary)
        temporary.replace(path)
    return BenchmarkModel(name, path, _RANDOM)


def _code_digest() -> str:
    """Return a digest of the code that builds networks, so that no file of older code is used."""
    code = (Path(networks.__file__), Path(__file__))
    return hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:8]


def build_network(name: str, architecture: Architecture) -> Network:
    """Return a network with random weights and a fitted last layer."""
    network = Network(architecture, MODEL_FACTS[name].size_px)
    _fit_sides(network, name)
    return network


def _fit_sides(network: Network, name: str) -> None:
    """Fit the sides to masks of synthetic photographs by ridge regression on their features."""
    facts, size = MODEL_FACTS[name], network.size_px
    looked_at = network.features if network.architecture.fused else network.features[:1]
    names = [value for value, _ in looked_at]
    model = network.model(tuple(names)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows, targets = [], []
    for seed in range(_FIT_PHOTOGRAPHS):
        taken = draw_photograph(seed, width=size, height=size, kind="book")
        tensor = normalize_images(resize_for_model(taken.image, size)[None], facts)
        found = session.run(names, {session.get_inputs()[0].name: tensor})
        rows.append(np.concatenate([_on_grid(value[0]) for value in found]).T)
        targets.append(_on_grid(taken.mask[None])[0] / 127.5 - 1)
    features, wanted = np.concatenate(rows).astype(np.float64), np.concatenate(targets)
    mean, spread = features.mean(0), features.std(0) + 1e-9
    scaled = (features - mean) / spread
    penalty = _FIT_RIDGE * len(scaled) * np.eye(scaled.shape[1])
    solved = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (wanted - wanted.mean()))
    weights = _FIT_LOGIT * solved / spread
    bias = _FIT_LOGIT * wanted.mean() - float(weights @ mean)
    start = 0
    for number, (_, channels) in enumerate(looked_at, start=1):
        centre = weights[start : start + channels].astype(np.float32)
        network.set_side(number, centre, bias if number == 1 else 0.0)
        start += channels


def _on_grid(maps: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return maps, [C, H, W], resampled on a square grid, [C, G * G]."""
    resized = [
        Image.fromarray(m).resize((_FIT_GRID, _FIT_GRID), Image.Resampling.BILINEAR) for m in maps
    ]
    return np.stack([np.asarray(image).ravel() for image in resized])


def main() -> None:
    """Build the models that the command line names, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.harness.shaped_models", description="Build benchmark models."
    )
    known = f"{', '.join(ARCHITECTURES)} (default: all)"
    parser.add_argument("names", nargs="*", metavar="NAME", help=known)
    names = parser.parse_args().names or list(ARCHITECTURES)
    if unknown := sorted(set(names) - set(ARCHITECTURES)):
        parser.error(f"unknown models: {', '.join(unknown)}")
    for name in names:
        model = benchmark_model(name)
        print(f"{model.label}: {model.path}, {model.path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
