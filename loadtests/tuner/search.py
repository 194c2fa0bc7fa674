"""The tuner's search. It runs nothing itself: a function that it gets measures each trial."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from loadtests.tuner.trials import Setting, Trial, Trials

Space = dict[str, tuple[Any, ...]]
"""Values of each field of Setting that the search may choose."""

MeasureTrial = Callable[[Setting, int], Trial]
"""Function that runs a trial of a setting with a number of users."""

_SATURATED_BELOW = 1.03
"""Gain of images/s from a higher load, below which the load is not raised further."""
_DOMINATED_ABOVE = 1.10
"""Factor by which another setting must be better, in rate and latency, to end a climb early."""
_CLOSE = 0.9
"""Share of the best rate that makes a setting a finalist, because trials differ by as much."""
_MAX_FINALISTS, _FINAL_ROUNDS = 4, 3


class Search:
    """A coordinate search for the setting with the highest rate that meets the objective."""

    def __init__(
        self,
        space: Space,
        ladder: Sequence[int],
        p95_s: float | None,
        trials: Trials,
        measure: MeasureTrial,
        *,
        limit_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a search, whose time begins now.

        Args:
            space: Values of the fields that are varied.
            ladder: Numbers of users, rising.
            p95_s: Objective for the 95th percentile of latencies, in seconds. None for throughput
                alone.
            trials: Trials that were made before. New ones are added.
            measure: Function that runs a trial.
            limit_s: Time for the whole search. No setting is tried for which there is no time left,
                so that what was found until then is decided on.
            clock: Function that returns seconds.
        """
        self._limit_s, self._clock = limit_s, clock
        self._began_s = clock()
        self._took_s: list[float] = []
        self.ended_early = False
        """Whether the limit has kept a trial from being made."""
        self._space = space
        self._ladder = ladder
        self._p95_s = p95_s
        self._trials = trials
        self._measure = measure

    def rank_from(self, start: Setting) -> list[Setting]:
        """Vary one field after the other, until no change of one improves the best setting.

        Placement and threads are varied together, because a thread that does all of the work is not
        worth the same as a thread that only runs the model. Engine and precision come first, since
        nothing else gains as much.

        A setting is first tried under the best load of the best one so far. Only if it comes close
        there is its own best load looked for.

        Returns:
            Settings that were tried and meet the objective, the best one first.
        """
        rates: dict[Setting, float] = {}

        def rate_of(setting: Setting, leader: Setting | None = None) -> float:
            normalized = setting.normalized()
            if leader is None or self._comes_close(normalized, leader.normalized()):
                self.climb(normalized)
            rates[normalized] = self._best_rate(normalized)
            return rates[normalized]

        # Kept as it is, not normalized: the batch size must still be there when the execution
        # changes to one that uses it.
        best, best_rate = start, rate_of(start)
        improved = True
        while improved:
            improved = False
            for names in self._varied_fields():
                for values in itertools.product(*(self._space[name] for name in names)):
                    candidate = replace(best, **dict(zip(names, values, strict=True)))
                    if candidate.normalized() == best.normalized():
                        continue
                    rate = rate_of(candidate, best)
                    if rate > best_rate:
                        best, best_rate, improved = candidate, rate, True
        met = [setting for setting, rate in rates.items() if rate > 0]
        return sorted(met, key=lambda setting: -rates[setting])

    def climb(self, setting: Setting) -> None:
        """Raise the load of a setting for as long as another trial can change the result.

        The climb ends when the objective is missed, when more users bring no more images, or when
        another setting was much better under the same load. That last reason does not count for
        the first load, which says little about the load that a setting can carry.
        """
        before: Trial | None = None
        for users in self._ladder:
            trial = self._try(setting, users)
            if trial is None:
                return
            if not trial.meets(self._p95_s):
                return
            if before is not None:
                saturated = trial.images_per_s < _SATURATED_BELOW * before.images_per_s
                if saturated or self._is_dominated(trial):
                    return
            before = trial

    def decide(self, ranked: Sequence[Setting]) -> Trial:
        """Return the trial of the setting that wins.

        The machine may have changed between the start and the end of a search. Settings that are
        close to the best one are therefore tried again, in turns, each under its best load. Their
        medians decide.

        Args:
            ranked: Settings that meet the objective, the best one first.
        """
        leaders = [self._best_trial(setting) for setting in ranked]
        enough = _CLOSE * leaders[0].images_per_s
        finalists = [trial for trial in leaders if trial.images_per_s >= enough][:_MAX_FINALISTS]
        if len(finalists) == 1:
            return finalists[0]
        for number in range(1, _FINAL_ROUNDS):
            missing = [
                trial
                for trial in finalists
                if self._trials.count(trial.setting, trial.users) <= number
            ]
            # A round is made for all finalists or for none.
            if not self._has_time_for(len(missing)):
                break
            for trial in missing:
                self._measure_again(trial.setting, trial.users)
        again = [self._trials.median(trial.setting, trial.users) for trial in finalists]
        if met := [trial for trial in again if trial.meets(self._p95_s)]:
            return max(met, key=lambda trial: trial.images_per_s)
        # No finalist meets the objective any more, so the closest one to it wins.
        return min(again, key=lambda trial: trial.p95_s)

    def _comes_close(self, setting: Setting, leader: Setting) -> bool:
        """Return whether a setting is nearly as fast as the leader under the leader's best load."""
        if not self._met_trials(leader):
            return True
        best = self._best_trial(leader)
        trial = self._try(setting, best.users)
        return (
            trial is not None
            and trial.failures == 0
            and trial.images_per_s >= _CLOSE * best.images_per_s
        )

    def _try(self, setting: Setting, users: int) -> Trial | None:
        """Return the trial of a setting under a load, or None if there is no time for it."""
        if not self._trials.count(setting, users):
            if not self._has_time_for(1 + self._final_trials()):
                return None
            self._measure_again(setting, users)
        return self._trials.median(setting, users)

    def _measure_again(self, setting: Setting, users: int) -> None:
        began_s = self._clock()
        self._trials.add(self._measure(setting, users))
        self._took_s.append(self._clock() - began_s)

    def _final_trials(self) -> int:
        """Return how many trials the decision may take, if one more setting comes close."""
        best: dict[Setting, float] = {}
        for trial in self._trials:
            if trial.meets(self._p95_s):
                best[trial.setting] = max(trial.images_per_s, best.get(trial.setting, 0.0))
        if not best:
            return 0
        close = sum(rate >= _CLOSE * max(best.values()) for rate in best.values())
        return min(close + 1, _MAX_FINALISTS) * (_FINAL_ROUNDS - 1)

    def _has_time_for(self, count: int) -> bool:
        """Return whether so many trials fit into the limit, by what those so far have taken."""
        # Without the first, which waits for the application to start. The slower half counts, since
        # each trial of a decision is one of another setting than the last.
        known_s = sorted(self._took_s[1:])
        if not known_s:
            return True
        needed_s = count * statistics.mean(known_s[len(known_s) // 2 :])
        enough = self._clock() - self._began_s + needed_s <= self._limit_s
        self.ended_early = self.ended_early or not enough
        return enough

    def _varied_fields(self) -> list[tuple[str, ...]]:
        """Return the fields that are varied one after the other. Some are varied together."""
        groups = (("pair",), ("placement", "threads"))
        first = [tuple(name for name in names if name in self._space) for names in groups]
        others = [(name,) for name in self._space if not any(name in names for names in groups)]
        return [names for names in (*first, *others) if names]

    def _is_dominated(self, trial: Trial) -> bool:
        """Return whether another setting was much better in both ways under the same load."""
        return any(
            other.users == trial.users
            and other.failures == 0
            and other.images_per_s > _DOMINATED_ABOVE * trial.images_per_s
            and other.p95_s * _DOMINATED_ABOVE < trial.p95_s
            for other in self._trials
        )

    def _met_trials(self, setting: Setting) -> list[Trial]:
        return [t for t in self._trials if t.setting == setting and t.meets(self._p95_s)]

    def _best_rate(self, setting: Setting) -> float:
        """Return the highest rate at which a setting met the objective, or 0 if it never did."""
        return max((trial.images_per_s for trial in self._met_trials(setting)), default=0.0)

    def _best_trial(self, setting: Setting) -> Trial:
        """Return the fastest trial in which a setting met the objective."""
        return max(self._met_trials(setting), key=lambda trial: trial.images_per_s)


def grid_size(space: Space) -> int:
    """Return the number of settings that a full grid would have."""
    grid = itertools.product(*space.values())
    return len({Setting(**dict(zip(space, point, strict=True))).normalized() for point in grid})
