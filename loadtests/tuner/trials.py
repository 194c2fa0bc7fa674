"""What the tuner tries: settings, what they achieved, and which one is next.

Nothing here runs anything: the search asks for a trial and is told its result.
"""

from __future__ import annotations

import csv
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from serve_app.errors import InvalidConfig

_SATURATED = 1.03
"""Gain of a higher load below which it is not raised further."""
_DOMINATED = 1.10
"""By how much another setting must be better, both ways, for a load to be given up."""
_CLOSE = 0.9
"""Share of the best rate from which on a setting may be the best one: trials differ by as much."""
_FINALISTS, _FINAL_ROUNDS = 4, 3


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """One point of the space."""

    execution: str = "fan_out"
    placement: str = "deployment"
    """``segmenter.placement``: the model in deployments of its own, or in the pipeline."""
    segmenters: int = 1
    """Replicas of Segmenter."""
    threads: int = 2
    """Of a Segmenter; where the model is in the pipeline, of that."""
    max_batch_size: int = 8
    max_ongoing: int = 64
    """Ongoing requests of a Segmenter."""
    pipelines: int = 1
    """Replicas of CutoutPipeline."""

    def normal(self) -> Setting:
        """Return the setting with what makes no difference set to one value."""
        batch = 1 if self.execution == "fan_out" else self.max_batch_size
        if self.placement == "pipeline":
            return replace(self, segmenters=1, max_batch_size=batch, max_ongoing=batch)
        return replace(
            self, max_batch_size=batch, max_ongoing=max(self.max_ongoing, batch, self.threads)
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """What a setting achieved at a load."""

    setting: Setting
    users: int
    """Clients that each wait for their answer before they send the next image."""
    images_per_s: float
    p50_s: float
    p95_s: float
    failures: int

    def meets(self, p95_s: float | None) -> bool:
        """Return whether it fulfils the objective."""
        return self.failures == 0 and (p95_s is None or self.p95_s <= p95_s)


Space = dict[str, tuple[Any, ...]]
"""Values of each field of Setting."""

Measure = Callable[[Setting, int], Trial]


class Trials:
    """All trials so far, kept in a CSV file: an interrupted tuning goes on where it was."""

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Args:
            path: The file; made with the first trial.

        Raises:
            InvalidConfig: It is not one of ours.
        """
        self._path = path
        self._found: dict[tuple[Setting, int], list[Trial]] = {}
        if path.is_file():
            for row in csv.DictReader(path.read_text("utf-8").splitlines()):
                trial = _from_row(row, path)
                self._keep(trial)

    def __iter__(self) -> Iterator[Trial]:
        """Yield one trial for each setting and load, in the order in which they were first made."""
        return (_median(trials) for trials in list(self._found.values()))

    def __len__(self) -> int:
        """Return how many trials were made."""
        return sum(map(len, self._found.values()))

    def count(self, setting: Setting, users: int) -> int:
        """Return how often a setting was tried at a load."""
        return len(self._found.get((setting, users), ()))

    def median(self, setting: Setting, users: int) -> Trial:
        """Return what a setting achieved at a load at which it was tried."""
        return _median(self._found[setting, users])

    def add(self, trial: Trial) -> None:
        """Keep a trial."""
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


def search(
    start: Setting,
    space: Space,
    ladder: Sequence[int],
    p95_s: float | None,
    trials: Trials,
    measure: Measure,
) -> list[Setting]:
    """Try settings: one field after the other, until no change of one improves the best.

    Placement and threads are varied together: a thread that does all of the work is not what a
    thread of the model alone is.

    Args:
        start: Where it begins.
        space: The values of the fields that are varied.
        ladder: Numbers of users, rising.
        p95_s: The objective; None: throughput alone.
        trials: What was measured before; new ones are added.
        measure: Makes a trial.

    Returns:
        Those that were tried and meet the objective, the best one first.
    """
    scores: dict[Setting, float] = {}

    def score(setting: Setting) -> float:
        normal = setting.normal()
        climb(normal, ladder, p95_s, trials, measure)
        scores[normal] = best_rate(normal, p95_s, trials)
        return scores[normal]

    # Not the normal form: the batch size is to be there when the execution changes to one that
    # has use for it.
    best, best_score = start, score(start)
    improved = True
    while improved:
        improved = False
        for names in _varied(space):
            for values in itertools.product(*(space[name] for name in names)):
                candidate = replace(best, **dict(zip(names, values, strict=True)))
                if candidate.normal() == best.normal():
                    continue
                found = score(candidate)
                if found > best_score:
                    best, best_score, improved = candidate, found, True
    met = [setting for setting, rate in scores.items() if rate > 0]
    return sorted(met, key=lambda setting: -scores[setting])


def _varied(space: Space) -> list[tuple[str, ...]]:
    """Return the fields, and fields together, that are varied one after the other."""
    together = tuple(name for name in ("placement", "threads") if name in space)
    return [together, *((name,) for name in space if name not in together)]


def climb(
    setting: Setting,
    ladder: Sequence[int],
    p95_s: float | None,
    trials: Trials,
    measure: Measure,
) -> None:
    """Raise the load of a setting for as long as that can tell anything.

    It ends where the objective is missed, where more users bring no more images, and where
    another setting was much better at the same load; not at the first one, which says little of
    what a setting can carry.
    """
    before: Trial | None = None
    for users in ladder:
        if not trials.count(setting, users):
            trials.add(measure(setting, users))
        trial = trials.median(setting, users)
        if not trial.meets(p95_s):
            return
        if before is not None:
            saturated = trial.images_per_s < _SATURATED * before.images_per_s
            if saturated or dominated(trial, trials):
                return
        before = trial


def dominated(trial: Trial, trials: Trials) -> bool:
    """Return whether another setting was much faster and quicker to answer at the same load."""
    return any(
        other.users == trial.users
        and other.failures == 0
        and other.images_per_s > _DOMINATED * trial.images_per_s
        and other.p95_s * _DOMINATED < trial.p95_s
        for other in trials
    )


def best_rate(setting: Setting, p95_s: float | None, trials: Trials) -> float:
    """Return the highest rate at which a setting met the objective; 0 if it never did."""
    rates = [t.images_per_s for t in trials if t.setting == setting and t.meets(p95_s)]
    return max(rates, default=0.0)


def best_trial(setting: Setting, p95_s: float | None, trials: Trials) -> Trial:
    """Return the trial that a setting is chosen for."""
    found = [t for t in trials if t.setting == setting and t.meets(p95_s)]
    return max(found, key=lambda trial: trial.images_per_s)


def decide(
    ranked: Sequence[Setting], p95_s: float | None, trials: Trials, measure: Measure
) -> Trial:
    """Return the trial of the setting that is chosen, of those that a search found.

    The machine is not the same at the beginning of a search and at its end. Settings that are
    close to the best one are tried again, in turns, each at its best load; medians count.

    Args:
        ranked: Settings that meet the objective, the best one first.
        p95_s: The objective; None: throughput alone.
        trials: What was measured before; new ones are added.
        measure: Makes a trial.
    """
    leaders = [best_trial(setting, p95_s, trials) for setting in ranked]
    enough = _CLOSE * leaders[0].images_per_s
    finalists = [trial for trial in leaders if trial.images_per_s >= enough][:_FINALISTS]
    if len(finalists) == 1:
        return finalists[0]
    for number in range(1, _FINAL_ROUNDS):
        for trial in finalists:
            if trials.count(trial.setting, trial.users) <= number:
                trials.add(measure(trial.setting, trial.users))
    again = [trials.median(trial.setting, trial.users) for trial in finalists]
    kept = [trial for trial in again if trial.meets(p95_s)]
    # Where none meets the objective any more, the one that is closest to it.
    return max(kept, key=lambda t: t.images_per_s) if kept else min(again, key=lambda t: t.p95_s)


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


def size(space: Space) -> int:
    """Return how many settings a full grid would have."""
    return len({Setting(**dict(zip(space, values, strict=True))).normal()
                for values in itertools.product(*space.values())})  # fmt: skip


def _median(trials: Sequence[Trial]) -> Trial:
    """Return the medians of trials of one setting at one load."""
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
        raise InvalidConfig(f"{path} holds no trials of this tuner: {error}") from error
    names = [item.name for item in fields(Setting)]
    setting = Setting(**{name: values.pop(name) for name in names})
    return Trial(setting, **values)
