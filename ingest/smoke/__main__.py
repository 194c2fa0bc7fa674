"""The process in which the checks run: its task is on the standard input, as JSON.

The standard output gets one line of JSON for each event. What libraries print goes to the standard
error.
"""

from __future__ import annotations

import json
import os
import sys
import time

from ingest.smoke.checks import steps
from serve_app.config import AppConfig
from serve_app.errors import ForeedgeError, InternalError


def run_steps() -> None:
    """Run all checks and report each of them, until one fails."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(**event: object) -> None:
        print(json.dumps(event), file=events, flush=True)

    task = json.load(sys.stdin)
    try:
        for step in steps(AppConfig.load(task["settings"]), matting=task["matting"]):
            report(begins=step.name, library=step.library)
            began = time.perf_counter()
            facts = step.run()
            report(ended=step.name, seconds=round(time.perf_counter() - began, 3), facts=facts)
    except ForeedgeError as error:
        report(code=error.code, message=error.message)
    # Whatever else is wrong with an installation is the finding that the command is for.
    except Exception as error:  # noqa: BLE001
        report(code=InternalError.code, message=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    run_steps()
