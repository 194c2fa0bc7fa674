"""Run scenarios in the namespaces of a run, and store what they have shown.

``python -m tests.nodes.inside FOLDER JOBS PARTITION_S NAME…`` writes a line of JSON for each
scenario to ``results.jsonl`` in the folder. ``__main__`` and the tests start it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from ingest.local.aws import use_dummy_credentials
from ingest.local.processes import terminate_as_interrupt
from tests.nodes.catalogue import SCENARIOS
from tests.nodes.heads import redis
from tests.nodes.rig import Rig, Settings, rig

RESULTS = "results.jsonl"


def main() -> None:
    """Run the scenarios that the arguments name."""
    folder, jobs, partition_s, *names = sys.argv[1:]
    use_dummy_credentials()
    settings = Settings(int(jobs), float(partition_s))
    number = 0
    with (Path(folder) / RESULTS).open("w") as results, terminate_as_interrupt():
        while names:
            number += 1
            here = Path(folder) / f"cluster{number}"
            here.mkdir()
            try:
                for stored in _run_on_one_cluster(here, settings, names):
                    print(json.dumps(stored), file=results, flush=True)
            except (OSError, RuntimeError, httpx.HTTPError, subprocess.SubprocessError):
                # Another cluster shows what the other scenarios do.
                error = {"name": names.pop(0), "error": traceback.format_exc()}
                print(json.dumps(error), file=results, flush=True)


def _run_on_one_cluster(
    folder: Path, settings: Settings, names: list[str]
) -> Iterator[dict[str, Any]]:
    """Run scenarios until the next one needs another cluster.

    Args:
        folder: Folder for what the machines write.
        settings: What differs between runs.
        names: Names of the scenarios. Each is removed when it has been run.

    Yields:
        Their results, as JSON can hold them.
    """
    variables = SCENARIOS[names[0]].variables
    with ExitStack() as stack:
        if variables:
            stack.enter_context(redis(folder))
        running = stack.enter_context(rig(folder, settings, variables))
        while names and SCENARIOS[names[0]].variables == variables:
            yield _run(running, names[0])
            del names[0]


def _run(running: Rig, name: str) -> dict[str, Any]:
    scenario = SCENARIOS[name]
    began = time.monotonic()
    print(f"{name}: {scenario.title}", file=sys.stderr, flush=True)
    running.spread(scenario.endpoints, scenario.visibility_s)
    result = scenario.run(running)
    print(f"{name}: {time.monotonic() - began:.0f} s, {result}", file=sys.stderr, flush=True)
    return result.stored()


if __name__ == "__main__":
    main()
