"""The table of what scenarios have shown."""

from __future__ import annotations

from collections.abc import Sequence

from tests.nodes.catalogue import SCENARIOS
from tests.nodes.rig import Result

_COLUMNS = (
    "what happens",
    "jobs with one outcome",
    "lost",
    "twice",
    "repeated",
    "requests",
    "failed",
    "HTTP as before, s",
    "next image, s",
    "last image, s",
    "replicas as before, s",
)


def table(results: Sequence[Result], before: str = "") -> str:
    """Return a table in Markdown, with a row for each scenario.

    Args:
        results: Results of scenarios.
        before: Text with an earlier table, whose rows of other scenarios stay.
    """
    new = {one.name: one for one in results}
    rows, facts = [], []
    for name, scenario in SCENARIOS.items():
        row, fact = f"| {scenario.title} | ", f"- {scenario.title}: "
        if name in new:
            rows.append(row + " | ".join(_cells(new[name])) + " |")
            facts += [f"{fact}{_facts(new[name])}."] if new[name].facts else []
        else:
            lines = before.splitlines()
            rows += [line for line in lines if line.startswith(row)]
            facts += [line for line in lines if line.startswith(fact)]
    head = [_COLUMNS, ("---", "---", *["---:"] * (len(_COLUMNS) - 2))]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in head), *rows, "", *facts])


def _cells(result: Result) -> tuple[str, ...]:
    verdict = result.verdict
    failed = ", ".join(f"{name}: {count}" for name, count in sorted(result.failed.items()))
    return (
        f"{verdict.outcomes} of {verdict.jobs}",
        f"{verdict.lost}",
        f"{verdict.twice}",
        f"{verdict.repeated}",
        f"{result.requests}",
        failed or "0",
        f"{result.http_s:.0f}",
        f"{result.next_image_s:.1f}",
        f"{result.drained_s:.0f}",
        f"{result.whole_s:.0f}",
    )


def _facts(result: Result) -> str:
    return ", ".join(f"{name} {value}" for name, value in result.facts.items())
