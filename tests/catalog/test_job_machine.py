"""No job ends unseen, whatever happens in whatever order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.catalog.job_machine import DyingOldWorker, JobMachine, World

_SETTINGS = settings(
    deadline=None,
    database=None,
    derandomize=True,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def world(url: str, tmp_path: Path) -> Iterator[World]:
    opened = World(url, tmp_path)
    yield opened
    opened.close()


def run_machine(world: World, kind: type[JobMachine], chosen: settings) -> None:
    def make() -> JobMachine:
        return kind(world)

    run_state_machine_as_test(make, settings=chosen)  # type: ignore[arg-type]


def test_no_job_ends_unseen(world: World) -> None:
    run_machine(world, JobMachine, settings(_SETTINGS, max_examples=12))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_job_ends_unseen_in_many_histories(world: World) -> None:
    many = settings(_SETTINGS, max_examples=400, derandomize=False, stateful_step_count=60)
    run_machine(world, JobMachine, many)


@pytest.mark.slow
def test_the_jobs_that_the_old_worker_loses_are_found(world: World) -> None:
    """The machine can fail: an old worker that dies leaves jobs that nobody ends."""
    search = settings(_SETTINGS, max_examples=400, phases=[Phase.generate])
    with pytest.raises(AssertionError, match="for ever"):
        run_machine(world, DyingOldWorker, search)
