"""Machines that come, go and die: ``make check-nodes``.

    python -m tests.nodes --jobs 300 --only notice,loss

Prints a table of what each scenario has shown, and ends with status 1 if it should not have.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from loadtests.harness.results import write_between_markers
from tests.nodes.catalogue import SCENARIOS
from tests.nodes.expectations import broken_promises
from tests.nodes.ground import ROOT, problem
from tests.nodes.heads import redis_problem
from tests.nodes.report import table
from tests.nodes.runs import run_scenarios

_DOCS = ROOT / "docs" / "operations" / "nodes.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300, help="jobs of each scenario")
    parser.add_argument("--partition-s", type=float, default=30)
    parser.add_argument("--only", default=",".join(SCENARIOS), help="scenarios, with commas")
    parser.add_argument("--keep", type=Path, help="folder that gets the logs of all machines")
    parser.add_argument(
        "--write-docs", action="store_true", help=f"replace the rows of {_DOCS.name}"
    )
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(SCENARIOS):
        parser.error(f"no scenarios {sorted(unknown)}. Choose from {', '.join(SCENARIOS)}")
    if trouble := problem():
        parser.error(trouble)
    if "head_kept" in names and (trouble := redis_problem()):
        parser.error(trouble)
    results, errors = run_scenarios(names, options.jobs, options.partition_s, options.keep)
    text = table(results)
    # Markdown, as the page has it.
    Console(file=sys.stdout).print(Markdown(text))
    broken = [*errors, *(one for result in results for one in broken_promises(result))]
    for one in broken:
        print(one)
    if options.write_docs and not broken:
        write_between_markers(_DOCS, "nodes", table(results, before=_DOCS.read_text()))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
