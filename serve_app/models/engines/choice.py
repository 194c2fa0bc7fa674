"""Which pair of engine and precision serves a model, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from serve_app.config import SegmenterConfig
from serve_app.models.engines.network import EXACT, INT8, Pair
from serve_app.models.engines.processor import Machine, pairs_by_speed, why_not_runnable
from serve_app.models.engines.records import (
    Uncounted,
    derived_path,
    read_current,
    why_not_accurate,
)
from serve_app.models.registry import Weights


@dataclass(frozen=True, slots=True)
class Choice:
    """The pair that serves a model."""

    pair: Pair = EXACT
    """Engine and precision."""
    derived: Path | None = None
    """File that the pair runs. None stands for the model's own."""
    derived_sha256: str | None = None
    """SHA-256 of that file, as hexadecimal digits. It follows from the model's own file and from
    the images that the derived one was made with."""
    because: str = "It is the default."
    """Why this pair serves."""
    refused: str | None = None
    """Why other pairs do not serve that were asked for, or whose record does not count. None if
    there are none."""

    def without(self, reason: str) -> Choice:
        """Return the choice that remains if the pair cannot serve after all."""
        earlier = [self.refused] if self.refused else []
        refused = _joined([*earlier, _sentence(self.pair, reason)])
        return Choice(because="It serves in place of a refused pair.", refused=refused)


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
    found = _judge(pair, weights, config, folder, machine)
    if isinstance(found, _Refusal):
        return Choice(pair).without(found.reason)
    return replace(found, because="It is configured.")


def _choose_fastest(
    weights: Weights, config: SegmenterConfig, folder: Path, machine: Machine
) -> Choice:
    """Return the fastest pair that the processor runs well and that the gate has let through."""
    accuracy = config.required_accuracy
    slower: list[str] = []
    refused: list[str] = []
    for pair in pairs_by_speed(machine):
        found = _judge(pair, weights, config, folder, machine)
        if isinstance(found, Choice):
            because = f"It is the fastest that has reached {accuracy!r}."
            return replace(found, because=because, refused=_joined(refused))
        slower.append(_sentence(pair, found.reason))
        if found.is_fault:
            refused.append(_sentence(pair, found.reason))
    fastest = f"Nothing is faster on this processor with the accuracy {accuracy!r}."
    return Choice(because=" ".join([fastest, *slower]), refused=_joined(refused))


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str
    """Why a pair must not serve."""
    is_fault: bool = False
    """Whether there is a record and it does not count, so that somebody expects it to serve."""


def _judge(
    pair: Pair, weights: Weights, config: SegmenterConfig, folder: Path, machine: Machine
) -> Choice | _Refusal:
    """Return the choice of a pair, or why it must not serve."""
    reason = why_not_runnable(pair, machine)
    if reason is not None:
        return _Refusal(reason)
    if not pair.changes_numbers:
        return Choice(pair)
    derived = derived_path(folder, weights.name, pair)
    record = read_current(derived, weights, pair, machine)
    if isinstance(record, Uncounted):
        return _Refusal(f"{record.reason}. {_advice(pair, weights)}", record.has_record)
    reason = why_not_accurate(record, config.required_accuracy)
    if reason is not None:
        return _Refusal(f"{reason}. {_advice(pair, weights)}")
    return Choice(pair, derived, record.derived_sha256)


def _advice(pair: Pair, weights: Weights) -> str:
    if pair == INT8:
        return f"Make it here with 'foreedge models quantize {weights.name} --calibration FOLDER'"
    command = f"foreedge models gate {weights.name} --precision {pair.precision}"
    return f"Measure it here with '{command}'"


def _sentence(pair: Pair, reason: str) -> str:
    return f"{pair} does not serve: {reason}"


def _joined(reasons: list[str]) -> str | None:
    return ". ".join(reasons) or None
