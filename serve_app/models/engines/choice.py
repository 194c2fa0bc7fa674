"""Which pair of engine and precision serves a model, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from serve_app.config import SegmenterConfig
from serve_app.models.engines.network import EXACT, INT8, Pair
from serve_app.models.engines.processor import Machine, pairs_by_speed, why_not_runnable
from serve_app.models.engines.records import derived_path, why_not_trusted
from serve_app.models.registry import Weights, file_digest


@dataclass(frozen=True, slots=True)
class Choice:
    """The pair that serves a model."""

    pair: Pair = EXACT
    """Engine and precision."""
    derived: Path | None = None
    """File that the pair runs. None stands for the model's own."""
    quantized_sha256: str | None = None
    """SHA-256 of that file, as hexadecimal digits, if it is quantized. Other derived files follow
    from the model's own, and this one from the images of its calibration too."""
    because: str = "It is the default."
    """Why this pair serves."""
    refused: str | None = None
    """Why another pair that was asked for does not serve. None if none was."""

    def without(self, reason: str) -> Choice:
        """Return the choice that remains if the pair cannot serve after all."""
        refused = f"{self.pair} does not serve: {reason}"
        return replace(Choice(), because="It serves in place of a refused pair.", refused=refused)


def choose_pair(
    weights: Weights, config: SegmenterConfig, folder: Path, machine: Machine
) -> Choice:
    """Return the pair that serves a model: the one asked for if it may, otherwise the default.

    Args:
        weights: The model.
        config: Engine, precision and accuracy that are asked for.
        folder: Folder of derived files.
        machine: Machine that is to serve.
    """
    if config.engine == "auto":
        return _choose_fastest(weights, config, folder, machine)
    pair = Pair(config.engine, config.precision)
    if pair == EXACT:
        return Choice()
    choice = _accept(pair, folder, weights, "It is configured.")
    reason = _why_refused(choice, weights, config, machine)
    if reason is None:
        return _identified(choice)
    return choice.without(reason)


def _choose_fastest(
    weights: Weights, config: SegmenterConfig, folder: Path, machine: Machine
) -> Choice:
    """Return the fastest pair that the processor runs well and that the gate has let through."""
    accuracy, slower = config.required_accuracy, []
    for pair in pairs_by_speed(machine):
        because = f"It is the fastest that has reached {accuracy!r}."
        choice = _accept(pair, folder, weights, because)
        reason = _why_refused(choice, weights, config, machine)
        if reason is None:
            return _identified(choice)
        slower.append(f"{pair} does not serve: {reason}")
    fastest = f"Nothing is faster on this processor with the accuracy {accuracy!r}."
    return Choice(because=" ".join([fastest, *slower]))


def _accept(pair: Pair, folder: Path, weights: Weights, because: str) -> Choice:
    derived = derived_path(folder, weights.name, pair) if pair.changes_numbers else None
    return Choice(pair, derived, because=because)


def _identified(choice: Choice) -> Choice:
    """Return a choice that may serve, with the digest of its file if that is quantized."""
    if choice.pair != INT8 or choice.derived is None:
        return choice
    return replace(choice, quantized_sha256=file_digest(choice.derived, "sha256"))


def _why_refused(
    choice: Choice, weights: Weights, config: SegmenterConfig, machine: Machine
) -> str | None:
    pair = choice.pair
    reason = why_not_runnable(pair, machine)
    if reason is not None or choice.derived is None:
        return reason
    reason = why_not_trusted(choice.derived, weights, pair, config.required_accuracy, machine)
    if reason is None:
        return None
    if pair == INT8:
        command = f"foreedge models quantize {weights.name} --calibration FOLDER"
        return f"{reason}. Make it here with '{command}'"
    command = f"foreedge models gate {weights.name} --precision {pair.precision}"
    return f"{reason}. Measure it here with '{command}'"
