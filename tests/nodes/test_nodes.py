"""A small share of ``make check-nodes``: three machines, one of which gets SIGTERM."""

from __future__ import annotations

import pytest

from tests.nodes.expectations import broken_promises
from tests.nodes.ground import problem
from tests.nodes.runs import run_scenarios

_problem = problem()
_JOBS = 60


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(_problem is not None, reason=str(_problem))
def test_machines_refuse_strangers_answer_for_each_other_and_end_without_a_loss() -> None:
    names = ["stranger", "elsewhere", "notice"]
    results, errors = run_scenarios(names, _JOBS, partition_s=0)
    assert errors == []
    assert [one for result in results for one in broken_promises(result)] == []
    assert [result.name for result in results] == names
