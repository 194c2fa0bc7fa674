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


def table(results: Sequence[Result]) -> str:
    """Return a table in Markdown, with a row for each scenario."""
    rows = [_COLUMNS, ("---", "---", *["---:"] * (len(_COLUMNS) - 2)), *map(_row, results)]
    facts = [f"- {_title(one)}: {_facts(one)}." for one in results if one.facts]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *facts])


def _row(result: Result) -> tuple[str, ...]:
    verdict = result.verdict
    failed = ", ".join(f"{name}: {count}" for name, count in sorted(result.failed.items()))
    return (
        _title(result),
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


def _title(result: Result) -> str:
    return SCENARIOS[result.name].title


def _facts(result: Result) -> str:
    return ", ".join(f"{name} {value}" for name, value in result.facts.items())
