"""Ray's own autoscaler adds nodes for a backlog on SQS, and gives them up.

`make check-autoscaling` runs it.
Real photographs, a real SQS protocol and the real application. The nodes are processes of this
machine, started by Ray's provider for tests.
"""

from __future__ import annotations

import os

import pytest

from tests.autoscaling.isolation import run_isolated
from tests.autoscaling.report import table
from tests.autoscaling.samples import BacklogRun
from tests.nodes.ground import problem

PHOTOGRAPHS = int(os.environ.get("PHOTOGRAPHS", "300"))

_PROBLEM = problem()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(_PROBLEM is not None, reason=str(_PROBLEM)),
]


@pytest.fixture(scope="module")
def run(pytestconfig: pytest.Config) -> BacklogRun:
    found = run_isolated(PHOTOGRAPHS)
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{table(found)}")
    return found


def test_nodes_are_added_because_replicas_fit_on_none(run: BacklogRun) -> None:
    first = run.samples[0]
    assert (first.nodes, first.wanted) == (0, 0)
    # The backlog alone starts no node: nothing of the application runs yet.
    waiting = [each for each in run.samples if each.at_s <= run.moments["images sent"]]
    assert waiting[-1].waiting == PHOTOGRAPHS
    assert {each.nodes for each in waiting} == {0}
    added = next(each for each in run.samples if each.nodes)
    before = [each for each in run.samples if each.at_s < added.at_s]
    assert any(each.without_node for each in before)
    assert max(each.nodes for each in run.samples) >= 2
    assert run.samples[-1].without_node == 0


def test_every_job_has_one_outcome_and_one_result(run: BacklogRun) -> None:
    assert len(run.jobs) == len(set(run.jobs)) == PHOTOGRAPHS
    assert run.lost == set()
    assert run.double == set()
    assert {status for _, status in run.records} == {"done"}
    assert run.results == PHOTOGRAPHS


def test_nodes_without_work_are_given_up(run: BacklogRun) -> None:
    most = max(each.nodes for each in run.samples)
    drained = [each for each in run.samples if each.at_s >= run.moments["drained"]]
    # The least replicas stay, on as many nodes as they happen to be.
    kept = [each for each in drained if each.at_s <= run.moments["idle nodes given up"]]
    assert kept[-1].nodes < most
    assert all(each.running >= 4 for each in kept)
    assert drained[-1].nodes == drained[-1].running == 0
