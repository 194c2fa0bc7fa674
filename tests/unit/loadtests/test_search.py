"""The tuner's search: what it finds, what it leaves out, and how it resumes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.tuner.search import Search, Space, grid_size
from loadtests.tuner.trials import Setting, Trial, Trials, frontier
from serve_app.errors import InvalidConfig

SPACE: Space = {
    "execution": ("fan_out", "stack"),
    "threads": (1, 2, 4),
    "segmenters": (1, 2),
    "max_batch_size": (4, 8),
    "pipelines": (1, 2),
    "pair": ("onnxruntime float32", "openvino bfloat16"),
}
LADDER = (1, 2, 4, 8, 16, 32)


class SimulatedMachine:
    """A machine with four cores on which stacking is slow."""

    def __init__(self, *, may_repeat: bool = False) -> None:
        self.asked: list[tuple[Setting, int]] = []
        self.rates: list[float] = []
        self._may_repeat = may_repeat

    def __call__(self, setting: Setting, users: int) -> Trial:
        assert self._may_repeat or (setting, users) not in self.asked
        self.asked.append((setting, users))
        threads = min(4, setting.threads * setting.segmenters)
        capacity = 10.0 * threads * (0.6 if setting.execution == "stack" else 1)
        if setting.pair == "openvino bfloat16":
            assert setting.execution == "fan_out"
            capacity *= 1.1
        capacity = min(capacity, 25.0 * setting.pipelines)
        alone_s = 0.1
        rate = min(capacity, users / alone_s)
        self.rates.append(rate)
        latency_s = users / rate
        return Trial(setting, users, rate, latency_s, latency_s * 1.2, 0)


def search_all(
    tmp_path: Path, p95_s: float | None
) -> tuple[Setting | None, SimulatedMachine, Trials]:
    machine, trials = SimulatedMachine(), Trials(tmp_path / "trials.csv")
    ranked = Search(SPACE, LADDER, p95_s, trials, machine).rank_from(Setting())
    return ranked[0] if ranked else None, machine, trials


def test_the_best_of_the_space_is_found_with_a_fraction_of_the_grid(tmp_path: Path) -> None:
    best, machine, _ = search_all(tmp_path, None)
    assert best is not None
    assert best.execution == "fan_out"
    assert best.threads * best.segmenters >= 4
    assert best.pipelines == 2
    assert best.pair == "openvino bfloat16"
    assert len(machine.asked) < grid_size(SPACE) * len(LADDER) / 2
    # Stacking is tried with batches, although fanning out has no use for their size.
    assert max(setting.max_batch_size for setting, _ in machine.asked) == 8


def test_the_objective_is_kept(tmp_path: Path) -> None:
    best, _, trials = search_all(tmp_path, 0.3)
    assert best is not None
    chosen = [trial for trial in trials if trial.setting == best and trial.p95_s <= 0.3]
    # Eight users at 44 a second: 0.18 s x 1.2.
    assert max(trial.images_per_s for trial in chosen) == pytest.approx(44)


def test_engine_and_precision_come_first(tmp_path: Path) -> None:
    _, machine, _ = search_all(tmp_path, None)
    start = machine.asked[0][0]
    settings = list(dict.fromkeys(setting for setting, _ in machine.asked))
    assert settings[1] == replace(start, pair="openvino bfloat16")


def test_a_setting_that_is_far_behind_takes_one_trial(tmp_path: Path) -> None:
    capacities, asked = {1: 30.0, 2: 20.0, 4: 29.0}, []

    def measure(setting: Setting, users: int) -> Trial:
        asked.append((setting.threads, users))
        return Trial(setting, users, min(10.0 * users, capacities[setting.threads]), 0.1, 0.1, 0)

    trials = Trials(tmp_path / "trials.csv")
    search = Search({"threads": (1, 2, 4)}, (1, 2, 4), None, trials, measure)
    assert search.rank_from(Setting(threads=1))[0].threads == 1
    # Under the best load of the best one first, and no further if that is far behind.
    assert asked == [(1, 1), (1, 2), (1, 4), (2, 4), (4, 4), (4, 1), (4, 2)]


@pytest.mark.parametrize("trials", [14, 20, 40])
def test_a_search_with_a_limit_decides_in_time(trials: int, tmp_path: Path) -> None:
    machine = SimulatedMachine(may_repeat=True)
    trial_s = 10.0
    search = Search(
        SPACE,
        LADDER,
        None,
        Trials(tmp_path / "trials.csv"),
        machine,
        limit_s=trials * trial_s,
        clock=lambda: trial_s * len(machine.asked),
    )
    ranked = search.rank_from(Setting())
    winner = search.decide(ranked)
    assert len(machine.asked) <= trials
    assert search.ended_early
    # It has found the engine at least, and what it chose is the best of what it tried.
    assert winner.setting.pair == "openvino bfloat16"
    assert winner.images_per_s == max(rate for rate in machine.rates)


def test_placement_and_threads_are_varied_together(tmp_path: Path) -> None:
    def measure(setting: Setting, users: int) -> Trial:
        # Better with two threads alone: either change by itself is worse.
        rates = {("deployment", 1): 20.0, ("pipeline", 1): 15.0, ("deployment", 2): 18.0}
        rate = rates.get((setting.placement, setting.threads), 30.0)
        return Trial(setting, users, rate, 0.1, 0.1, 0)

    space: Space = {"threads": (1, 2), "placement": ("deployment", "pipeline"), "pipelines": (1,)}
    trials = Trials(tmp_path / "trials.csv")
    best, *_ = Search(space, (1,), None, trials, measure).rank_from(Setting(threads=1))
    assert (best.placement, best.threads) == ("pipeline", 2)


def test_no_setting_is_found_if_none_meets_the_objective(tmp_path: Path) -> None:
    best, machine, _ = search_all(tmp_path, 0.01)
    assert best is None
    assert {users for _, users in machine.asked} == {1}


def test_a_dominated_setting_is_given_up_early(tmp_path: Path) -> None:
    trials, machine = Trials(tmp_path / "trials.csv"), SimulatedMachine()
    good, bad = Setting(threads=4, pipelines=2), Setting(execution="stack", threads=1)
    search = Search(SPACE, LADDER, None, trials, machine)
    search.climb(good)
    before = len(machine.asked)
    search.climb(bad)
    # Not after the first load, which says little about the load that a setting can carry.
    assert [users for _, users in machine.asked[before:]] == [1, 2]


def test_a_failure_ends_a_climb_and_is_never_chosen(tmp_path: Path) -> None:
    trials = Trials(tmp_path / "trials.csv")

    def measure(setting: Setting, users: int) -> Trial:
        return Trial(setting, users, 10.0 * users, 0.1, 0.1, failures=users // 4)

    Search(SPACE, LADDER, None, trials, measure).climb(Setting())
    assert [trial.users for trial in trials] == [1, 2, 4]
    assert [trial.users for trial in frontier(list(trials))] == [2]


def test_an_interrupted_search_resumes(tmp_path: Path) -> None:
    whole, machine, _ = search_all(tmp_path / "whole", 0.3)
    interrupted = SimulatedMachine()

    def until_interrupted(setting: Setting, users: int) -> Trial:
        if len(interrupted.asked) == 7:
            raise KeyboardInterrupt
        return interrupted(setting, users)

    path = tmp_path / "trials.csv"
    with pytest.raises(KeyboardInterrupt):
        Search(SPACE, LADDER, 0.3, Trials(path), until_interrupted).rank_from(Setting())
    rest = SimulatedMachine()
    assert Search(SPACE, LADDER, 0.3, Trials(path), rest).rank_from(Setting())[0] == whole
    assert interrupted.asked + rest.asked == machine.asked


def test_close_settings_are_tried_again_in_turns_and_medians_decide(tmp_path: Path) -> None:
    lucky, steady, slow = (Setting(threads=count).normalized() for count in (1, 2, 4))
    rates = {lucky: [31.0, 26.0, 25.0], steady: [30.0, 30.0, 29.0], slow: [20.0]}
    asked: list[Setting] = []

    def measure(setting: Setting, users: int) -> Trial:
        asked.append(setting)
        return Trial(setting, users, rates[setting][asked.count(setting) - 1], 0.1, 0.1, 0)

    path = tmp_path / "trials.csv"
    space: Space = {"threads": (1, 2, 4)}
    ranked = Search(space, (8,), None, Trials(path), measure).rank_from(lucky)
    assert ranked == [lucky, steady, slow]
    # From the file, as an interrupted search resumes.
    resumed = Search(space, (8,), None, Trials(path), measure)
    winner = resumed.decide(ranked)
    assert asked == [lucky, steady, slow, lucky, steady, lucky, steady]
    assert (winner.setting, winner.images_per_s) == (steady, 30.0)
    assert Search(space, (8,), None, Trials(path), measure).decide(ranked) == winner
    assert len(asked) == 7


def test_a_setting_that_met_the_objective_by_chance_is_not_chosen(tmp_path: Path) -> None:
    quick, late = (Setting(threads=count).normalized() for count in (1, 2))
    times = {quick: [1.5, 1.6, 1.7], late: [1.9, 2.2, 2.3]}
    asked: list[Setting] = []

    def measure(setting: Setting, users: int) -> Trial:
        asked.append(setting)
        p95_s = times[setting][asked.count(setting) - 1]
        return Trial(setting, users, 30.0 if setting == late else 29.0, 1.0, p95_s, 0)

    trials = Trials(tmp_path / "trials.csv")
    search = Search({"threads": (1, 2)}, (8,), 2.0, trials, measure)
    ranked = search.rank_from(quick)
    assert ranked == [late, quick]
    assert search.decide(ranked).setting == quick


def test_a_file_with_other_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    path.write_text("name,value\nx,1\n")
    with pytest.raises(InvalidConfig, match=r"trials\.csv"):
        Trials(path)


def test_the_frontier_has_the_trials_that_no_other_one_beats() -> None:
    points = [(1.0, 0.1), (2.0, 0.3), (1.5, 0.4), (3.0, 0.3), (4.0, math.inf)]
    trials = [Trial(Setting(), n, rate, 0.1, p95, 0) for n, (rate, p95) in enumerate(points)]
    assert [(t.images_per_s, t.p95_s) for t in frontier(trials)] == [
        (1.0, 0.1), (3.0, 0.3), (4.0, math.inf),
    ]  # fmt: skip


def test_settings_without_a_difference_are_not_tried_twice() -> None:
    assert Setting(max_batch_size=4).normalized() == Setting(max_batch_size=8).normalized()
    assert Setting("stack", max_batch_size=4).normalized() != Setting("stack").normalized()
    # The model in the pipeline has no replicas and no queue of its own.
    inside = Setting(placement="pipeline").normalized()
    assert Setting(placement="pipeline", segmenters=2, max_ongoing=9).normalized() == inside
    assert inside != Setting().normalized()
