"""The engines and precisions that the tuner may choose on this machine."""

from __future__ import annotations

from typing import Any

from serve_app.config import AppConfig
from serve_app.contracts.precision import Accuracy
from serve_app.models.engines.choice import choose_pair
from serve_app.models.engines.network import EXACT, OPENVINO_EXACT
from serve_app.models.engines.processor import Machine, pairs_by_speed
from serve_app.models.engines.records import derived_folder
from serve_app.models.registry import locate_weights


def asked_accuracy(args: dict[str, Any]) -> Accuracy:
    """Return the ``segmenter.accuracy`` of the arguments, and ``exact`` if they name none.

    A precision in the settings stands for ``fast`` without it. The tuner names precisions that
    nobody asked for, so it must not loosen the masks in this way.
    """
    found: Accuracy | None = AppConfig.load(args).segmenter.accuracy
    return found or "exact"


def find_pairs(model: str, args: dict[str, Any], machine: Machine) -> tuple[str, ...]:
    """Return the pairs that would serve a model here and that its processor runs well.

    A precision that changes numbers is one of them if its masks have passed the gate for
    ``asked_accuracy`` (``foreedge models gate``).

    Args:
        model: Name of the model.
        args: Arguments of the application, without engine and precision.
        machine: Machine that is to serve.

    Returns:
        Their names, such as ``openvino bfloat16``. The default pair is the first.
    """
    accuracy = asked_accuracy(args)
    candidates = [EXACT, OPENVINO_EXACT, *pairs_by_speed(machine)]
    found = []
    for pair in candidates:
        own = {"accuracy": accuracy, "execution": "fan_out", **pair_settings(str(pair))}
        segmenter = {**args.get("segmenter", {}), **own}
        config = AppConfig.load({**args, "segmenter": segmenter})
        weights = locate_weights(model, config)
        choice = choose_pair(weights, config.segmenter, derived_folder(config), machine)
        if choice.refused is None:
            found.append(str(pair))
    return tuple(found)


def pair_settings(pair: str) -> dict[str, str]:
    """Return the settings of the section ``segmenter`` that a pair stands for."""
    engine, _, precision = pair.partition(" ")
    return {"engine": engine, "precision": precision}
