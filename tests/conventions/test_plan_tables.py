"""What README.md and pages of docs say about costs and times, held against the planner."""

from __future__ import annotations

from docs.generate_plans import (
    COSTS,
    PERFORMANCE,
    README,
    UPKEEP,
    UPKEEP_RUN,
    performance,
    plan_of,
    readme,
    upkeep,
)


def test_the_costs_in_the_readme_are_what_the_planner_says() -> None:
    assert README.read_text("utf-8") == readme(), "run `make docs`"
    # The command above the table is that of one of its rows.
    command = "--instance c7i.xlarge --model u2netp"
    assert command in README.read_text("utf-8")
    [row] = [each for each in COSTS if each.model == "u2netp" and each.pair.changes_numbers]
    assert f"--engine {row.pair.engine} --precision {row.pair.precision}" in README.read_text()
    assert plan_of(row).node_cost_per_thousand > 0


def test_the_runs_of_ten_million_are_what_the_planner_says() -> None:
    assert PERFORMANCE.read_text("utf-8") == performance(), "run `make docs`"


def test_the_cost_on_the_page_about_upkeep_is_what_the_planner_says() -> None:
    assert UPKEEP.read_text("utf-8") == upkeep(), "run `make docs`"
    measured = plan_of(UPKEEP_RUN).profile.control_plane
    assert f"| {measured.ingest_per_s:.0f}, from the CPU of one on Ray" in UPKEEP.read_text("utf-8")
