"""Running the checks in a child process, and the report about it.

A library that crashes ends the child. The report says which one it was, and why if that is known.
"""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from ingest.smoke.machine import describe_machine, explain_crash
from serve_app.errors import DeadlineExceeded, InternalError, ModelUnavailable
from serve_app.models.engines.cpuinfo import CPUINFO
from serve_app.version import find_revision, find_version

_COMMAND = ("-m", "ingest.smoke")
DEFAULT_TIMEOUT_S = 600.0
_START = ("the start", "the process of the checks")
"""Name and library of what runs before the first check begins."""
_OUT_OF_MEMORY = (
    "which the kernel sends if the memory is over its limit. Give the container more memory"
)


@dataclass(slots=True)
class Report:
    """What the checks found."""

    reason: str | None = None
    """Code and text of the first failure, or None."""
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration of each check that ended."""
    running: tuple[str, str] | None = None
    """Name and library of the check that has begun and not ended."""

    def add(self, event: dict[str, Any]) -> None:
        """Add an event of the child."""
        if "begins" in event:
            self.running = (event["begins"], event["library"])
        elif "ended" in event:
            self.running = None
            self.seconds[event["ended"]] = event["seconds"]
            facts = event["facts"]
            self.facts.setdefault("models", {}).update(facts.pop("models", {}))
            self.facts.update(facts)
        else:
            self.reason = f"{event['code']}: {event['message']}"

    def read(self, output: str) -> None:
        """Add the events of a child's output. One that was killed may have left half a line."""
        for line in output.splitlines(keepends=True):
            if line.endswith("\n"):
                self.add(json.loads(line))

    def end_late(self, timeout_s: float) -> None:
        """Let the check that is running be the reason, since the time is over."""
        name, _ = self.running or _START
        self.reason = (
            f"{DeadlineExceeded.code}: {name} did not end within {timeout_s:g} s, the time for all "
            "checks. Give them more with --timeout, as on an emulated processor."
        )

    def to_json(self) -> str:
        """Return the report as one line of JSON."""
        content = {
            "ok": self.reason is None,
            "reason": self.reason,
            "version": find_version(),
            "revision": find_revision(),
            **describe_machine(),
            **self.facts,
            "seconds": self.seconds,
        }
        return json.dumps(content)


def run_smoke(
    settings: dict[str, Any], *, matting: bool, timeout_s: float = DEFAULT_TIMEOUT_S
) -> Report:
    """Run all checks in a child process and return what they found.

    Args:
        settings: Settings of the application, which were validated.
        matting: Whether the arithmetic of matting is checked too.
        timeout_s: Maximum time of all checks together, in seconds.
    """
    task = json.dumps({"settings": settings, "matting": matting}, default=str)
    report = Report()
    late = False
    with subprocess.Popen(
        [sys.executable, *_COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            output, errors = child.communicate(task, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            output, errors = child.communicate()
            late = True
    report.read(output)
    if report.reason is None and late:
        report.end_late(timeout_s)
    elif report.reason is None and child.returncode:
        report.reason = _explain_end(report.running, child.returncode, errors)
    return report


def _explain_end(running: tuple[str, str] | None, code: int, errors: str) -> str:
    """Return the reason of a child that did not report one itself.

    Args:
        running: Name and library of the check that was running.
        code: Exit code of the child. A shell between us adds 128 to the number of a signal.
        errors: What the child printed on its standard error.
    """
    name, library = running or _START
    number = -code if code < 0 else code - 128
    try:
        died_of = signal.Signals(number).name
    except ValueError:
        last = (errors.strip().splitlines() or ["nothing was printed"])[-1]
        return f"{InternalError.code}: {library} ended with exit code {code}: {last}"
    during = "" if name == library else f" ({name})"
    if died_of == "SIGKILL":
        return f"{InternalError.code}: {library}{during} died with SIGKILL, {_OUT_OF_MEMORY}."
    if library != "onnxruntime":
        return f"{InternalError.code}: {library}{during} died with {died_of}."
    why = explain_crash(CPUINFO, platform.machine())
    return f"{ModelUnavailable.code}: onnxruntime{during} died with {died_of}; {why}."
