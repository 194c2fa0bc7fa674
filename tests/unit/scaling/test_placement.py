"""Replicas on nodes: CPUs that are free on two nodes do not add up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.scaling.placement import Placement, count_nodes


def filled(nodes: int, cpus: float, *stages: float, fixed: tuple[float, ...] = ()) -> Placement:
    placement = Placement(cpus, stages, fixed)
    for _ in range(nodes):
        placement.add_node()
    return placement


def count_placed(placement: Placement, stage: int) -> int:
    placed = 0
    while placement.place(stage):
        placed += 1
    return placed


def test_halves_of_two_nodes_hold_no_replica() -> None:
    """28 nodes with 3.8 free CPUs hold 28 replicas of 2 CPUs, not 53."""
    assert count_placed(filled(28, 3.8, 2.0), 0) == 28
    assert count_placed(filled(28, 4.0, 2.0), 0) == 56
    assert count_placed(filled(28, 4.0, 2.0, fixed=(0.2, 0.1)), 0) == 54


def test_a_fixed_actor_moves_to_a_new_node() -> None:
    placement = filled(1, 4.0, 2.0, fixed=(0.2,))
    assert count_placed(placement, 0) == 1
    assert placement.lose_node() == [1]
    placement.add_node()
    placement.add_node()
    assert count_placed(placement, 0) == 3


def test_given_up_replicas_empty_a_node() -> None:
    placement = filled(2, 4.0, 1.0)
    for _ in range(5):
        assert placement.place(0)
    assert placement.empty_nodes == 0
    placement.give_up(0)
    placement.give_up(0)
    assert placement.empty_nodes == 1
    placement.remove_empty_node()
    assert len(placement) == 1
    assert placement.place(0)
    assert not placement.place(0)


@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=2),
    st.sampled_from([(1.0, 1.0), (2.0, 2.0), (2.0, 1.0), (1.0, 3.0)]),
    st.integers(3, 17),
    st.integers(1, 4),
)
def test_the_counted_nodes_hold_everything_and_few_more_than_needed(
    replicas: list[int], cpus: tuple[float, float], node_cpus: int, actors: int
) -> None:
    fixed = (0.2, *(0.1,) * (actors - 1))
    nodes = count_nodes(replicas, cpus, node_cpus, fixed)
    # By hand: each node has a list of what is on it.
    free = [node_cpus - (fixed[index] if index < actors else 0.0) for index in range(nodes)]
    largest = max((0, 1), key=lambda stage: cpus[stage])
    for stage in (largest, 1 - largest):
        for _ in range(replicas[stage]):
            roomy = max(range(nodes), key=lambda index: free[index])
            free[roomy] -= cpus[stage]
    assert min(free) > -1e-6
    demand = sum(count * each for count, each in zip(replicas, cpus, strict=True)) + sum(fixed)
    assert nodes <= max(actors, demand / (node_cpus - max(cpus) + 0.8) + actors + 1)


def test_what_fits_on_no_node() -> None:
    with pytest.raises(ValueError, match="more than the 1 CPUs"):
        count_nodes([1], [2.0], 1.0)
