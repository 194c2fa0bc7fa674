"""Runs of scenarios in namespaces of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.nodes.ground import run_folder, run_inside
from tests.nodes.inside import RESULTS
from tests.nodes.rig import Result, from_stored


def run_scenarios(
    names: Sequence[str], jobs: int, partition_s: float, keep: Path | None = None
) -> tuple[list[Result], list[str]]:
    """Run scenarios, each with a number of jobs.

    Args:
        names: Names of the scenarios.
        jobs: Number of jobs of each.
        partition_s: Time, in seconds, for which a machine is cut off.
        keep: Folder that gets the logs of all machines, or None to keep none.

    Returns:
        What they have shown, and the errors of those that did not end.
    """
    results: list[Result] = []
    errors: list[str] = []
    with run_folder() as folder:
        arguments = [str(folder), str(jobs), str(partition_s), *names]
        status = run_inside("tests.nodes.inside", arguments, folder)
        found = folder / RESULTS
        lines = found.read_text().splitlines() if found.exists() else []
        for stored in map(json.loads, lines):
            if "error" in stored:
                errors.append(f"{stored['name']}: {stored['error']}")
            else:
                results.append(from_stored(stored))
        if keep is not None:
            shutil.copytree(folder, keep, ignore=_sockets, symlinks=True)
    if status != 0 or len(results) + len(errors) != len(names):
        errors.append(f"the scenarios ended with status {status}")
    return results, errors


def _sockets(folder: str, names: list[str]) -> list[str]:
    """Return what of a folder cannot be copied."""
    return [name for name in names if (Path(folder) / name).is_socket()]
