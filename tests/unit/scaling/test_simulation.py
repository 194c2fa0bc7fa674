"""The simulation: the real policy over time, and its model of Serve's delays."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve.autoscaling_policy import _apply_delay_logic
from ray.serve.config import AutoscalingConfig

from ingest.scaling.scaler import Goals
from ingest.scaling.simulation import ScalingDelays, Simulation
from ingest.scaling.simulation_inputs import ClusterModel, OfferedLoad, ScalingRules, StageModel
from ingest.scaling.timeline import Timeline

PIPELINE = StageModel("CutoutPipeline", seconds_per_image=0.1, slots=8, cpus=2)
SEGMENTER = StageModel("Segmenter", seconds_per_image=0.2, slots=2, cpus=2)
STAGES = (PIPELINE, SEGMENTER)
CLUSTER = ClusterModel(node_cpus=16, max_nodes=50)


def rules(drain_s: float = 600, max_replicas: int = 400) -> ScalingRules:
    goals = Goals(drain_s - 30, answer_s=10, late_after_s=20, away_after_s=300)
    return ScalingRules(goals, max_replicas)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.floats(0, 5), st.floats(0, 9))
def test_delays_are_those_of_serve(wishes: list[int], up_s: float, down_s: float) -> None:
    ours, target, serves = ScalingDelays(up_s, down_s), 3, 3
    config = AutoscalingConfig(max_replicas=100, upscale_delay_s=up_s, downscale_delay_s=down_s)
    state: dict[str, float] = {}
    for now_s, wish in enumerate(wishes):
        target = ours.apply(wish, target, float(now_s))
        serves, state = _apply_delay_logic(wish, serves, config, state, _now=float(now_s))
        assert target == serves


def drain(
    backlog: float,
    target: ScalingRules,
    cluster: ClusterModel = CLUSTER,
    *,
    max_images_per_s: float = math.inf,
) -> Timeline:
    load = OfferedLoad(backlog, permits=2000, max_images_per_s=max_images_per_s)
    run = Simulation(STAGES, cluster, target, load)
    return run.run(5 * 86_400, stop_when_drained=True)


@pytest.mark.parametrize("backlog", [2_000, 20_000, 100_000])
@pytest.mark.parametrize("drain_s", [600, 3600])
def test_a_burst_is_drained_within_a_quarter_of_its_target(backlog: int, drain_s: float) -> None:
    timeline = drain(backlog, rules(drain_s))
    assert timeline.drained_at_s is not None
    assert timeline.drained_at_s <= 1.25 * drain_s
    assert timeline.reversals(0) == timeline.reversals(1) == 0
    # Nor with many more replicas than that takes.
    work_s = backlog * SEGMENTER.seconds_per_image
    assert max(state.wanted[1] for state in timeline.states) <= math.ceil(work_s / (drain_s - 30))


def test_an_empty_queue_returns_to_the_minimum_and_its_nodes_go() -> None:
    run = Simulation(STAGES, CLUSTER, rules(), OfferedLoad(20_000, permits=2000))
    timeline = run.run(3600, stop_when_drained=False)
    peak = max(state.nodes for state in timeline.states)
    last = timeline.states[-1]
    assert peak > 1
    assert (last.wanted, last.running, last.nodes) == ((1, 1), (1, 1), 1)
    assert timeline.reversals(1) == 1


@pytest.mark.parametrize(
    ("busy_replicas", "seed"), [(1.3, 1), (2.0, 2), (2.5, 1), (3.98, 2), (7.2, 1)]
)
def test_a_steady_load_does_not_flap(busy_replicas: float, seed: int) -> None:
    """At most one reversal in any ten minutes, after the first ten."""
    noise = random.Random(seed)
    per_s = busy_replicas / SEGMENTER.seconds_per_image

    def arrivals(at_s: float) -> float:
        return max(0.0, noise.gauss(per_s, per_s / 2))

    def read(backlog: float) -> float:
        return backlog * noise.uniform(0.8, 1.2)

    run = Simulation(
        STAGES, CLUSTER, rules(), OfferedLoad(arrivals=arrivals, permits=2000), read=read
    )
    states = run.run(5400, stop_when_drained=False).states
    for start in range(600, len(states) - 600, 60):
        window = Timeline(states[start : start + 600])
        assert window.reversals(0) <= 1
        assert window.reversals(1) <= 1
    # And the load is carried: nobody waits longer than the target.
    assert max(state.backlog for state in states) <= per_s * 600 * 1.25


def test_both_stages_grow_in_the_ratio_of_their_times() -> None:
    wanted = max(state.wanted for state in drain(100_000, rules()).states)
    assert wanted[1] / wanted[0] == pytest.approx(2, rel=0.1)


def test_the_ingest_can_be_what_limits() -> None:
    timeline = drain(20_000, rules(), max_images_per_s=10)
    assert timeline.drained_at_s == pytest.approx(2000, rel=0.05)


def test_nodes_bound_the_replicas() -> None:
    timeline = drain(20_000, rules(), ClusterModel(node_cpus=16, max_nodes=1))
    assert max(sum(state.running) for state in timeline.states) == 8
    assert max(state.nodes for state in timeline.states) == 1


def test_lost_nodes_are_replaced_and_cost_time() -> None:
    calm = drain(200_000, rules(3600))
    lossy = drain(200_000, rules(3600), ClusterModel(16, max_nodes=50, losses_per_node_hour=2))
    assert calm.lost_nodes == 0
    assert lossy.lost_nodes > 3
    assert calm.drained_at_s is not None
    assert lossy.drained_at_s is not None
    assert calm.drained_at_s < lossy.drained_at_s < 1.25 * 3600


def test_node_hours_are_those_of_the_timeline() -> None:
    timeline = drain(20_000, rules())
    assert timeline.node_hours == pytest.approx(
        sum(state.nodes for state in timeline.states[:-1]) / 3600
    )


def test_it_foretells_what_the_cluster_does() -> None:
    """The burst of tests/cluster/test_scaling.py, which took 74 s on a machine of two cores."""
    stages = (StageModel("CutoutPipeline", 0.4, 3.5, 1), StageModel("Segmenter", 1.0, 1, 1))
    fast = ScalingRules(Goals(76, 10, 4, 30), 6, 4, 10, 12, 1)
    cluster = ClusterModel(node_cpus=10, max_nodes=1, replica_start_s=5)
    timeline = Simulation(stages, cluster, fast, OfferedLoad(270)).run(
        200, 0.25, stop_when_drained=False
    )
    assert timeline.drained_at_s == pytest.approx(74, abs=4)
    assert max(state.wanted for state in timeline.states) == (2, 4)
    assert timeline.states[-1].wanted == (1, 1)
