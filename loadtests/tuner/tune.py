"""Find the settings that are fastest on this machine: ``python -m loadtests.tuner``.

The tuner drives locust, without its web page, against the running application and changes its
settings through Serve's REST API. ``search`` says how it searches. Without ``--dashboard`` it runs
an application of its own. It can be interrupted at any time: the next run resumes from
``trials.csv``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from ingest.cli.settings import read_settings_file
from ingest.units import counted, parse_duration
from loadtests.harness.corpus import IMAGES_OF_A_SET, corpus
from loadtests.harness.results import (
    DOCS,
    measure_busy_cores,
    replace_between_markers,
    write_between_markers,
)
from loadtests.harness.shaped_models import BenchmarkModel, benchmark_model
from loadtests.tuner.driver import TrialDriver
from loadtests.tuner.pairs import (
    asked_accuracy,
    check_accuracy_is_used,
    judge_pairs,
    serving_pairs,
)
from loadtests.tuner.report import PLOT, describe_setting, tuning_section, write_page, write_yaml
from loadtests.tuner.search import Search, Space, grid_size
from loadtests.tuner.target import (
    Target,
    application_config,
    own_ray,
    serve_config,
    tuned_args,
)
from loadtests.tuner.trials import Setting, Trial, Trials
from serve_app.contracts.precision import Accuracy
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.models.engines.cpuinfo import cpu_name
from serve_app.models.engines.network import EXACT
from serve_app.models.engines.processor import this_machine

_MARKER = "tuning"
"""Name of the markers of the table in the document."""
_PLACEMENTS = ("deployment", "pipeline")
_EXECUTIONS = ("fan_out", "stack")
_TRIAL_S, _SHORTEST_TRIAL_S = 15, 4
_TRIALS_A_SEARCH = 60
"""Trials that fit into a search with a limit, in half of its time."""


def main() -> None:
    """Tune, write the results, and report errors on one line."""
    try:
        Tuning(_parse_arguments(), Console()).run()
    except ForeedgeError as error:
        print(f"error: {error.code}: {error.message}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted. Run the same command again to resume.", file=sys.stderr)
        sys.exit(130)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.tuner",
        description="Find the settings that are fastest on this machine.",
    )
    add = parser.add_argument
    p95 = "objective for the 95th percentile of latencies, e.g. 2s (default: throughput alone)"
    add("--p95", help=p95)
    add("--model", default="u2netp", help="folio, u2netp, u2net or isnet-general-use")
    accuracy = "accuracy that engines and precisions must have reached (default: exact)"
    add("--accuracy", choices=get_args(Accuracy), help=accuracy)
    add("--config", type=Path, help="YAML file with settings that all trials share")
    add("--corpus", default="1600x1200", help="set of loadtests.harness.corpus, or folder")
    dashboard = "URL of the dashboard of a running Ray to tune, e.g. http://host:8265"
    add("--dashboard", help=dashboard)
    add("--url", default="http://127.0.0.1:8000", help="URL of that Ray's application")
    add("--minutes", type=float, help="time for everything (default: as long as it takes)")
    add("--seconds", type=int, help=f"duration of one trial (default: {_TRIAL_S}, or less)")
    users = "numbers of users, rising"
    add("--users", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help=users)
    space = parser.add_argument_group("space", "values of each setting that the tuner may choose")
    add = space.add_argument
    add("--placement", nargs="+", default=list(_PLACEMENTS), choices=_PLACEMENTS)
    add("--execution", nargs="+", default=list(_EXECUTIONS), choices=_EXECUTIONS)
    add("--threads", type=int, nargs="+", default=[1, 2, 4])
    add("--segmenters", type=int, nargs="+", default=[1, 2])
    add("--pipelines", type=int, nargs="+", default=[1, 2])
    add("--max-batch-size", type=int, nargs="+", default=[4, 8])
    add("--max-ongoing", type=int, nargs="+", default=[16, 64])
    add = parser.add_argument_group("results").add_argument
    add("--out", type=Path, default=Path("out/tune"), help="folder of trials, plot and page")
    yaml = "Serve file of the winner"
    add("--yaml", type=Path, default=Path("cluster/serve.tuned.yaml"), help=yaml)
    docs = f"write the table into {DOCS}, and the plot next to it"
    add("--write-docs", action="store_true", help=docs)
    options = parser.parse_args()
    if options.write_docs:
        try:
            # Minutes before the table is written.
            replace_between_markers(DOCS.read_text("utf-8"), _MARKER, "")
        except ValueError as error:
            parser.error(f"{DOCS}: {error}")
    return options


class Tuning:
    """One run of the tuner, as its command line asks for it."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        """Prepare a run.

        Raises:
            InvalidConfig: The settings are wrong, or an accuracy is asked for that no pair uses.
        """
        self._options = options
        self._console = console
        self._p95_s = None if options.p95 is None else parse_duration(options.p95)
        self._model: BenchmarkModel = benchmark_model(options.model)
        self._shared = read_settings_file(options.config) if options.config else {}
        if options.accuracy is not None:
            segmenter = {**self._shared.get("segmenter", {}), "accuracy": options.accuracy}
            self._shared = {**self._shared, "segmenter": segmenter}
        self._args = {**self._shared, **self._model.settings}
        self._ladder = sorted(set(options.users))
        self._began_s = time.monotonic()
        self._busy_cores = measure_busy_cores()
        self._seconds: int = options.seconds or trial_seconds(options.minutes)
        # What gains most comes first, since a search with a limit may reach no more.
        names = (
            "placement",
            "threads",
            "pipelines",
            "segmenters",
            "execution",
            "max_batch_size",
            "max_ongoing",
        )
        self._space: Space = {name: tuple(getattr(options, name)) for name in names}
        judged = judge_pairs(self._model.name, self._args, this_machine())
        if options.accuracy is not None:
            check_accuracy_is_used(options.accuracy, judged)
        self._not_tried = [reason for reason in judged.values() if reason is not None]
        self._space["pair"] = serving_pairs(judged)

    def run(self) -> None:
        """Search, and write the results.

        Raises:
            InvalidConfig: No setting meets the objective, or the folder has other trials.
        """
        options = self._options
        self._check_conditions()
        trials = Trials(options.out / "trials.csv")
        for reason in self._not_tried:
            self._print(reason)
        if done := len(trials):
            self._print(f"Resuming after {done} trials.")
        # Now, because the first trial would draw them in its own time.
        corpus(options.corpus, IMAGES_OF_A_SET)
        with self._target() as target:
            driver = TrialDriver(target, self._ladder, self._seconds, options.corpus, self._print)
            search = Search(
                self._space,
                self._ladder,
                self._p95_s,
                trials,
                driver.measure,
                limit_s=self._remaining_s(),
            )
            ranked = search.rank_from(self._start())
            if not ranked:
                missed = options.p95 and f"keeps the 95th percentile within {options.p95}"
                raise InvalidConfig(
                    f"no setting {missed or 'answered every image'}. "
                    f"The trials are in {options.out}."
                )
            winner = search.decide(ranked)
            if options.dashboard:
                target.apply(winner.setting)
        self._write_results(trials, winner, ended_early=search.ended_early)

    def _remaining_s(self) -> float:
        """Return the seconds that are left of the time for everything."""
        if self._options.minutes is None:
            return math.inf
        return 60 * float(self._options.minutes) - (time.monotonic() - self._began_s)

    def _start(self) -> Setting:
        """Return the setting to begin with: first values, and largest batches and queues."""
        first = {name: values[0] for name, values in self._space.items()}
        largest = {name: max(self._space[name]) for name in ("max_batch_size", "max_ongoing")}
        return Setting(**{**first, **largest})

    def _check_conditions(self) -> None:
        """Refuse a folder with trials under other conditions."""
        options = self._options
        conditions = {
            "args": self._args,
            "corpus": options.corpus,
            "seconds": self._seconds,
            "machine": f"{_machine_name()}, {cpu_name()}",
            "pairs": self._space["pair"],
            "dashboard": options.dashboard,
        }
        path = options.out / "conditions.json"
        text = json.dumps(conditions, indent=2, sort_keys=True, default=str)
        if path.is_file() and path.read_text("utf-8") != text:
            raise InvalidConfig(
                f"the folder {options.out} has trials under other conditions ({path}). "
                "Choose another --out, or remove the folder."
            )
        options.out.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")

    @contextmanager
    def _target(self) -> Iterator[Target]:
        options = self._options
        if options.dashboard:
            yield Target(options.url.rstrip("/"), options.dashboard.rstrip("/"), self._args)
            return
        with own_ray(self._args) as target:
            yield target

    def _write_results(self, trials: Trials, winner: Trial, *, ended_early: bool) -> None:
        """Write the winner as a Serve file and all trials as a page, and into the documents."""
        options, p95_s = self._options, self._p95_s
        goal = "throughput" if p95_s is None else f"throughput with p95 within {p95_s:g} s"
        notes = self._notes(trials, winner, goal)
        if ended_early:
            notes.append(f"The search ended at its limit of {options.minutes:g} minutes.")
        permanent = tuned_args(shared_args(self._shared, self._model.name), winner.setting)
        final = {**application_config(self._args, winner.setting), "args": permanent}
        # The arguments say the same as the deployments' overrides.
        del final["deployments"]
        write_yaml(options.yaml, serve_config([final], "http://0.0.0.0:8000"), notes)
        title = f"{self._model.label}: {goal}"
        page = write_page(options.out, list(trials), winner, p95_s, title, notes)
        for line in notes[3:]:
            self._print(line)
        self._print(f"Serve file  {options.yaml}\nPage        {page}")
        if options.write_docs:
            section = tuning_section(list(trials), winner, p95_s, self._model.label, notes)
            write_between_markers(DOCS, _MARKER, section)
            shutil.copyfile(options.out / PLOT, DOCS.parent / "images" / PLOT)
            self._print(f"Section     {DOCS}")

    def _notes(self, trials: Trials, winner: Trial, goal: str) -> list[str]:
        settings = {trial.setting for trial in trials}
        count = trials.count(winner.setting, winner.users)
        notes = [
            f"Tuned for {goal}, by python -m loadtests.tuner, on {datetime.now(UTC):%Y-%m-%d}.",
            f"Model: {self._model.label}. Images: {self._options.corpus}.",
            f"Machine: {_machine_name()}, {cpu_name()}, {self._busy_cores:g} cores busy with other "
            "work before.",
            f"Chosen: {describe_setting(winner.setting)}: {winner.images_per_s:.2f} images/s, "
            f"p95 {winner.p95_s:.2f} s at {counted(winner.users, 'user')}, the median of {count}.",
            f"Engines tried: {', '.join(self._space['pair'])}, those that serve here with accuracy "
            f"{asked_accuracy(self._args)}.",
            f"{len(settings)} of {grid_size(self._space)} settings tried, "
            f"{counted(len(trials), 'trial')} of {self._seconds} s.",
        ]
        if not winner.meets(self._p95_s):
            notes.append("It met the objective once, and missed it when it was tried again.")
        if not winner.setting.pair.endswith(EXACT.precision):
            notes.append("A node without the derived files of that precision serves in float32.")
        return notes

    def _print(self, text: str) -> None:
        # What others wrote, such as a pip command with an extra, has brackets of its own.
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def trial_seconds(minutes: float | None) -> int:
    """Return the duration of a trial for a search of so many minutes, or for one without a limit.

    Half of the time goes to changes of settings and to warm-ups.
    """
    if minutes is None:
        return _TRIAL_S
    return max(_SHORTEST_TRIAL_S, min(_TRIAL_S, round(60 * minutes / 2 / _TRIALS_A_SEARCH)))


def shared_args(shared: dict[str, Any], model: str) -> dict[str, Any]:
    """Return the arguments for a Serve file, which names the model and no file of this machine."""
    return {**shared, "models": [model]}


def _machine_name() -> str:
    return f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}"
