"""``python -m loadtests.tuner``: find the settings that are fastest on this machine.

Drives locust, headless, against the running application and changes its settings through Serve's
REST API; see ``trials`` for how it searches. Without ``--dashboard`` it starts an application of
its own and ends it. Interrupt it whenever: the next run goes on from ``trials.csv``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from ingest.cli.settings import read_settings_file
from ingest.units import parse_duration
from loadtests.harness.shaped_models import benchmark_model
from loadtests.tuner.report import label, write_page, write_yaml
from loadtests.tuner.target import Target, application, own_ray, serve_config, tuned_args
from loadtests.tuner.trials import Setting, Space, Trial, Trials, decide, search, size
from serve_app.errors import ForeedgeError, InternalError, InvalidConfig

_LOCUSTFILE = Path(__file__).parents[1] / "load" / "locustfile.py"
_LOCUST_GRACE_S = 60.0


def main() -> None:
    """Tune, and write what came out."""
    try:
        _tune(_arguments(), Console())
    except ForeedgeError as error:
        print(f"error: {error.code}: {error.message}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; run it again to go on", file=sys.stderr)
        sys.exit(130)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.tuner", description=__doc__)
    add = parser.add_argument
    add("--p95", help="objective, as in 2s; without it throughput alone counts")
    add("--model", default="folio", help="folio, u2netp, u2net or isnet-general-use")
    add("--config", type=Path, help="YAML file with the settings that every trial shares")
    add("--corpus", default="1600x1200", help="a set of loadtests.harness.corpus, or a folder")
    add("--dashboard", help="of the running Ray whose application is tuned, as http://host:8265")
    add("--url", default="http://127.0.0.1:8000", help="of that application")
    add("--seconds", type=int, default=15, help="of one trial")
    add("--users", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="loads, rising")
    places = ["deployment", "pipeline"]
    add("--placement", nargs="+", default=places, choices=places)
    add("--execution", nargs="+", default=["fan_out", "stack"], choices=["fan_out", "stack"])
    add("--threads", type=int, nargs="+", default=[1, 2, 4])
    add("--segmenters", type=int, nargs="+", default=[1, 2])
    add("--pipelines", type=int, nargs="+", default=[1, 2])
    add("--max-batch-size", type=int, nargs="+", default=[4, 8])
    add("--max-ongoing", type=int, nargs="+", default=[16, 64])
    add("--out", type=Path, default=Path("out/tune"), help="folder of trials, plot and page")
    add("--yaml", type=Path, default=Path("cluster/serve.tuned.yaml"), help="the winner")
    return parser.parse_args()


def _tune(options: argparse.Namespace, console: Console) -> None:
    p95_s = None if options.p95 is None else parse_duration(options.p95)
    model = benchmark_model(options.model)
    shared = read_settings_file(options.config) if options.config else {}
    args = {**shared, **model.settings}
    ladder = sorted(set(options.users))
    space: Space = {
        "placement": tuple(options.placement),
        "execution": tuple(options.execution),
        "threads": tuple(options.threads),
        "segmenters": tuple(options.segmenters),
        "pipelines": tuple(options.pipelines),
        "max_batch_size": tuple(options.max_batch_size),
        "max_ongoing": tuple(options.max_ongoing),
    }
    _same_conditions(options.out, {
        "args": args, "corpus": options.corpus, "seconds": options.seconds,
        "machine": _machine(), "dashboard": options.dashboard,
    })  # fmt: skip
    trials = Trials(options.out / "trials.csv")
    if done := len(trials):
        console.print(f"{done} trials were made before", highlight=False)
    with _target(options, args) as target:
        current: list[Setting] = []

        def measure(setting: Setting, users: int) -> Trial:
            if current != [setting]:
                target.apply(setting)
                # The first images after a change find cold caches.
                drive(target.http, setting, max(ladder[0], 2), 3, options.corpus)
                current[:] = [setting]
            trial = drive(target.http, setting, users, options.seconds, options.corpus)
            console.print(
                f"{label(setting)}, {users} users: {trial.images_per_s:.2f} images/s, "
                f"p95 {trial.p95_s:.2f} s" + (f", {trial.failures} FAILED" * bool(trial.failures)),
                highlight=False,
                soft_wrap=True,
            )
            return trial

        first = {name: values[0] for name, values in space.items()}
        largest = {name: max(space[name]) for name in ("max_batch_size", "max_ongoing")}
        start = Setting(**{**first, **largest})
        ranked = search(start, space, ladder, p95_s, trials, measure)
        if not ranked:
            raise InvalidConfig(f"no setting keeps p95 within {options.p95}; see {options.out}")
        winner = decide(ranked, p95_s, trials, measure)
        best = winner.setting
        if options.dashboard:
            target.apply(best)
    made = list(trials)
    goal = "throughput" if p95_s is None else f"throughput with p95 within {p95_s:g} s"
    notes = [
        f"Tuned for {goal}, by python -m loadtests.tuner, on {datetime.now(UTC):%Y-%m-%d}.",
        f"Model: {model.label}. Photographs: {options.corpus}.",
        f"Machine: {_machine()}.",
        f"Chosen: {label(best)}: {winner.images_per_s:.2f} images/s, p95 {winner.p95_s:.2f} s "
        f"at {winner.users} users, the median of {trials.count(best, winner.users)}.",
        f"{len({trial.setting for trial in made})} of {size(space)} settings tried, "
        f"{len(trials)} trials.",
    ]
    if not winner.meets(p95_s):
        notes.append("It kept the objective once, and not when it was tried again.")
    final = {**application(args, best), "args": tuned_args(shared_args(shared, model.name), best)}
    # What the overrides say is in the arguments now.
    del final["deployments"]
    write_yaml(options.yaml, serve_config([final], "http://0.0.0.0:8000"), notes)
    page = write_page(options.out, made, winner, p95_s, f"{model.label}: {goal}", notes)
    for line in notes[3:]:
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"Serve file  {options.yaml}\nPage        {page}", highlight=False)


def shared_args(shared: dict[str, Any], model: str) -> dict[str, Any]:
    """Return the arguments of the Serve file: it names the model, and no file of this machine."""
    return {**shared, "models": [model]}


def drive(url: str, setting: Setting, users: int, seconds: int, corpus: str) -> Trial:
    """Return what a load of so many users makes of the application.

    Raises:
        InternalError: locust did not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--headless", "--host", url,
            "--system", "http", "--load", "constant", "--peak", str(users),
            "--duration", str(seconds), "--photographs", corpus, "--query", "min_subject_px=0",
            "--stop-timeout", "30", "--csv", f"{folder}/locust",
            "--only-summary", "--loglevel", "ERROR", "--exit-code-on-error", "0",
        ]  # fmt: skip
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds + _LOCUST_GRACE_S,
            check=False,
        )
        stats = Path(folder) / "locust_stats.csv"
        if done.returncode != 0 or not stats.is_file():
            raise InternalError(f"locust ended with {done.returncode}: {done.stderr[-500:]}")
        rows = list(csv.DictReader(stats.read_text().splitlines()))
    return read_stats(rows, setting, users)


def read_stats(rows: list[dict[str, str]], setting: Setting, users: int) -> Trial:
    """Return a trial from the rows of locust's ``_stats.csv``.

    Raises:
        InternalError: There was not one request.
    """
    total = next((row for row in rows if row["Name"] == "Aggregated"), None)
    if total is None or int(total["Request Count"]) == 0:
        raise InternalError("locust made no request: is the application reached?")
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


@contextmanager
def _target(options: argparse.Namespace, args: dict[str, Any]) -> Iterator[Target]:
    if options.dashboard:
        yield Target(options.url.rstrip("/"), options.dashboard.rstrip("/"), args)
        return
    with own_ray(args) as target:
        yield target


def _same_conditions(folder: Path, conditions: dict[str, Any]) -> None:
    """Refuse to mix trials of other conditions."""
    path = folder / "conditions.json"
    text = json.dumps(conditions, indent=2, sort_keys=True, default=str)
    if path.is_file() and path.read_text("utf-8") != text:
        raise InvalidConfig(
            f"{folder} has trials of other conditions ({path}): give another --out, or remove it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _machine() -> str:
    return f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()}"
