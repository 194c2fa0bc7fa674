"""Settings of the application, and trials of them that are kept in a file."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from serve_app.errors import InvalidConfig
from serve_app.models.engines.network import EXACT

DEFAULT_PAIR = str(EXACT)


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """One point of the space that is searched."""

    execution: str = "fan_out"
    placement: str = "deployment"
    """Value of ``segmenter.placement``: the model in its own deployment, or in the pipeline."""
    segmenters: int = 1
    """Replicas of Segmenter."""
    threads: int = 2
    """Threads of a Segmenter, or of a pipeline that has the model."""
    max_batch_size: int = 8
    max_ongoing: int = 64
    """Ongoing requests of a Segmenter."""
    pipelines: int = 1
    """Replicas of CutoutPipeline."""
    pair: str = DEFAULT_PAIR
    """Engine and precision, such as ``openvino bfloat16``."""

    def normalized(self) -> Setting:
        """Return the setting with every field that makes no difference set to one value."""
        batch = 1 if self.execution == "fan_out" else self.max_batch_size
        if self.execution == "stack" and self.pair != DEFAULT_PAIR:
            # Other engines run one image on each thread only.
            return replace(self, pair=DEFAULT_PAIR).normalized()
        if self.placement == "pipeline":
            return replace(self, segmenters=1, max_batch_size=batch, max_ongoing=batch)
        return replace(
            self, max_batch_size=batch, max_ongoing=max(self.max_ongoing, batch, self.threads)
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """Throughput and latency of a setting under one load."""

    setting: Setting
    users: int
    """Clients that each wait for a response before they send the next image."""
    images_per_s: float
    p50_s: float
    p95_s: float
    failures: int

    def meets(self, p95_s: float | None) -> bool:
        """Return whether the trial meets the objective."""
        return self.failures == 0 and (p95_s is None or self.p95_s <= p95_s)


class Trials:
    """All trials so far. They are kept in a CSV file, so that an interrupted search can resume."""

    def __init__(self, path: Path) -> None:
        """Read the trials in a file.

        Args:
            path: CSV file, which the first trial creates.

        Raises:
            InvalidConfig: The file has other content.
        """
        self._path = path
        self._found: dict[tuple[Setting, int], list[Trial]] = {}
        if path.is_file():
            for row in csv.DictReader(path.read_text("utf-8").splitlines()):
                self._keep(_from_row(row, path))

    def __iter__(self) -> Iterator[Trial]:
        """Yield the median trial of each setting and load, in the order of their first trials."""
        return (_median(trials) for trials in list(self._found.values()))

    def __len__(self) -> int:
        """Return the number of trials."""
        return sum(map(len, self._found.values()))

    def count(self, setting: Setting, users: int) -> int:
        """Return the number of trials of a setting under a load."""
        return len(self._found.get((setting, users), ()))

    def median(self, setting: Setting, users: int) -> Trial:
        """Return the median trial of a setting under a load that it was tried with."""
        return _median(self._found[setting, users])

    def add(self, trial: Trial) -> None:
        """Add a trial, and append it to the file."""
        self._keep(trial)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = not self._path.is_file()
        with self._path.open("a", newline="", encoding="utf-8") as file:
            row = _row(trial)
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _keep(self, trial: Trial) -> None:
        self._found.setdefault((trial.setting, trial.users), []).append(trial)


def frontier(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other one beats in both rate and latency, by latency."""
    kept: list[Trial] = []
    by_latency = sorted(
        (trial for trial in trials if trial.failures == 0),
        key=lambda trial: (trial.p95_s, -trial.images_per_s),
    )
    for trial in by_latency:
        if not kept or trial.images_per_s > kept[-1].images_per_s:
            kept.append(trial)
    return kept


def _median(trials: Sequence[Trial]) -> Trial:
    """Return the median of the trials of one setting under one load."""
    first = trials[0]
    if len(trials) == 1:
        return first
    names = ("images_per_s", "p50_s", "p95_s")
    medians = {name: statistics.median(getattr(t, name) for t in trials) for name in names}
    return replace(first, **medians, failures=max(trial.failures for trial in trials))


def _row(trial: Trial) -> dict[str, Any]:
    row = asdict(trial)
    setting = row.pop("setting")
    return {**setting, **row}


def _from_row(row: dict[str, str], path: Path) -> Trial:
    kinds = {"str": str, "int": int, "float": float}
    try:
        values = {
            item.name: kinds[str(item.type)](row[item.name])
            for item in (*fields(Setting), *fields(Trial))
            if item.name != "setting"
        }
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidConfig(f"the file {path} has no trials of this tuner: {error}") from error
    names = [item.name for item in fields(Setting)]
    setting = Setting(**{name: values.pop(name) for name in names})
    return Trial(setting, **values)
