"""Nodes that follow a backlog: ``python -m tests.autoscaling``, as root."""

from __future__ import annotations

import argparse
import textwrap
import time
from pathlib import Path

from loadtests.harness.results import describe_machine, write_between_markers
from tests.autoscaling.cluster import AUTOSCALER_EVERY_S, IDLE_S, NODE_CPUS
from tests.autoscaling.isolation import run_isolated
from tests.autoscaling.report import draw, table
from tests.autoscaling.samples import BacklogRun
from tests.nodes.ground import ROOT

_DOCUMENT = ROOT / "docs" / "operations" / "scaling.md"
_PICTURE = ROOT / "docs" / "images" / "node-autoscaling.png"


def summarize(run: BacklogRun) -> str:
    """Return what a table does not say."""
    text = (
        f"{len(run.jobs)} images: {len(run.records)} outcomes, {len(run.lost)} lost, "
        f"{len(run.double)} double, {run.results} results. A node has {NODE_CPUS} CPUs for Ray, "
        f"and the machine {describe_machine()['cores']} cores for all of them. The autoscaler "
        f"decides every {AUTOSCALER_EVERY_S} s and gives up a node after {IDLE_S} s without work "
        f"({time.strftime('%d %B %Y', time.gmtime())})."
    )
    return textwrap.fill(text, 108)


def main() -> None:
    """Run a backlog, print its table, and write both into the documents if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.autoscaling",
        description="Drain a backlog with a cluster that has no node at its start.",
    )
    parser.add_argument("--photographs", type=int, default=300, help="jobs (default: 300)")
    parser.add_argument("--write-docs", action="store_true", help=f"write {_DOCUMENT.name}")
    options = parser.parse_args()
    run = run_isolated(options.photographs)
    text = f"{table(run)}\n\n{summarize(run)}"
    print(text)
    picture = _PICTURE if options.write_docs else Path("out/node-autoscaling.png")
    picture.parent.mkdir(exist_ok=True)
    draw(run, picture)
    if options.write_docs:
        write_between_markers(_DOCUMENT, "node-autoscaling", text)


if __name__ == "__main__":
    main()
