"""Trials with locust on the application that is tuned."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ingest.units import counted
from loadtests.tuner.report import describe_setting
from loadtests.tuner.target import Target
from loadtests.tuner.trials import Setting, Trial
from serve_app.errors import DeadlineExceeded, InternalError

_LOCUSTFILE = Path(__file__).parents[1] / "load" / "locustfile.py"
_LOCUST_GRACE_S = 60.0
_WARM_UP_S = 3


class TrialDriver:
    """Runs trials on an application, and changes its setting when a trial needs another one."""

    def __init__(
        self,
        target: Target,
        ladder: Sequence[int],
        seconds: int,
        corpus: str,
        report: Callable[[str], None],
    ) -> None:
        """Prepare trials.

        Args:
            target: Application to run the trials on.
            ladder: Numbers of users, rising.
            seconds: Duration of a trial.
            corpus: Set of images, or folder.
            report: Function that is called with a line about each trial.
        """
        self._target = target
        self._warm_up_users = max(ladder[0], 2)
        self._seconds = seconds
        self._corpus = corpus
        self._report = report
        self._current: Setting | None = None

    def measure(self, setting: Setting, users: int) -> Trial:
        """Run one trial, and report its result. What the application cannot run is a failure."""
        if self._current != setting:
            self._current = None
            try:
                self._target.apply(setting)
            except InternalError as error:
                # Unlike a dashboard that does not answer, it says nothing of other settings.
                self._report(f"{describe_setting(setting)}: FAILED: {error.message}")
                return Trial(setting, users, 0.0, 0.0, 0.0, failures=1)
            # The first images after a change meet cold caches.
            drive(self._target.http, setting, self._warm_up_users, _WARM_UP_S, self._corpus)
            self._current = setting
        trial = drive(self._target.http, setting, users, self._seconds, self._corpus)
        failures = f", {trial.failures} FAILED" if trial.failures else ""
        self._report(
            f"{describe_setting(setting)}, {counted(users, 'user')}: "
            f"{trial.images_per_s:.2f} images/s, p95 {trial.p95_s:.2f} s{failures}"
        )
        return trial


def drive(url: str, setting: Setting, users: int, seconds: int, corpus: str) -> Trial:
    """Load the application with locust, and return the result as a trial.

    Args:
        url: URL of the application.
        setting: Setting that the application runs with.
        users: Number of users.
        seconds: Duration of the load.
        corpus: Set of images, or folder.

    Raises:
        InternalError: locust failed.
        DeadlineExceeded: locust did not end in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--host", url,
            "--system", "http", "--load", "constant", "--peak", str(users),
            "--duration", str(seconds), "--photographs", corpus, "--query", "min_subject_px=0",
            "--stop-timeout", "30", "--csv", f"{folder}/locust",
            "--only-summary", "--loglevel", "ERROR", "--exit-code-on-error", "0",
        ]  # fmt: skip
        limit_s = seconds + _LOCUST_GRACE_S
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DeadlineExceeded(
                f"locust did not end within {limit_s:g} s. Other work may keep the cores busy: run "
                "the same command again, which resumes"
            ) from error
        stats = Path(folder) / "locust_stats.csv"
        if done.returncode != 0 or not stats.is_file():
            raise InternalError(f"locust exited with {done.returncode}: {done.stderr[-500:]}")
        rows = list(csv.DictReader(stats.read_text().splitlines()))
    return read_stats(rows, setting, users)


def read_stats(rows: list[dict[str, str]], setting: Setting, users: int) -> Trial:
    """Return a trial from the rows of locust's ``_stats.csv``.

    Raises:
        InternalError: locust sent no request.
    """
    total = next((row for row in rows if row["Name"] == "Aggregated"), None)
    if total is None or int(total["Request Count"]) == 0:
        raise InternalError("locust sent no request. Check that the application answers.")
    failures = int(total["Failure Count"])
    answered = 1 - failures / int(total["Request Count"])
    return Trial(
        setting,
        users,
        round(float(total["Requests/s"]) * answered, 4),
        float(total["50%"]) / 1000,
        float(total["95%"]) / 1000,
        failures,
    )
