"""The engines and precisions that the tuner may choose on this machine."""

from __future__ import annotations

from typing import Any

from serve_app.config import AppConfig
from serve_app.contracts.precision import Accuracy
from serve_app.errors import InvalidConfig
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


def judge_pairs(model: str, args: dict[str, Any], machine: Machine) -> dict[str, str | None]:
    """Return the default pair and the pairs that a processor runs well, each with its verdict.

    A precision that changes numbers serves if its masks have passed the gate for
    ``asked_accuracy`` (``foreedge models gate``).

    Args:
        model: Name of the model.
        args: Arguments of the application, without engine and precision.
        machine: Machine that is to serve.

    Returns:
        Why a pair would not serve, or None if it would, by names such as ``openvino bfloat16``. The
        default pair is the first.
    """
    accuracy = asked_accuracy(args)
    found = {}
    for pair in (EXACT, OPENVINO_EXACT, *pairs_by_speed(machine)):
        own = {"accuracy": accuracy, "execution": "fan_out", **pair_settings(str(pair))}
        segmenter = {**args.get("segmenter", {}), **own}
        config = AppConfig.load({**args, "segmenter": segmenter})
        weights = locate_weights(model, config)
        choice = choose_pair(weights, config.segmenter, derived_folder(config), machine)
        found[str(pair)] = choice.refused
    return found


def serving_pairs(judged: dict[str, str | None]) -> tuple[str, ...]:
    """Return the names of the pairs that would serve."""
    return tuple(pair for pair, refused in judged.items() if refused is None)


def check_accuracy_is_used(accuracy: Accuracy, judged: dict[str, str | None]) -> None:
    """Check that an accuracy lets something serve that ``exact`` is not enough for.

    Raises:
        InvalidConfig: It does not, so that the search would take its time for nothing new.
    """
    changing = {pair: why for pair, why in judged.items() if not pair.endswith(EXACT.precision)}
    if accuracy == "exact" or None in changing.values():
        return
    reasons = ". ".join(map(str, changing.values()))
    raise InvalidConfig(
        f"--accuracy {accuracy} would change nothing here: "
        f"{reasons or 'this processor runs nothing faster than float32'}. "
        "Leave it out to tune in float32"
    )


def pair_settings(pair: str) -> dict[str, str]:
    """Return the settings of the section ``segmenter`` that a pair stands for."""
    engine, _, precision = pair.partition(" ")
    return {"engine": engine, "precision": precision}
