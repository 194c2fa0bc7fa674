"""Foreedge compared with its peers: ``python -m loadtests.peers`` (``make bench-peers``).

All systems get the same images and weights on the same machine. Every round starts each system,
warms it up and measures it while no other one runs. Every second round takes the systems in reverse
order. Medians over the rounds go to the terminal, to ``out/bench/peers-MODEL.json`` and, with
``--write-docs``, into docs/performance.md and README.md. A model's table replaces that model's last
one and no other. The peers have an environment of their own, ``.venv-peers``.

Without options the systems are those that Foreedge has aims for, with true u2netp if its weights
are on this machine (``shaped_models``). ``--systems all`` adds the other peers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from loadtests.harness.application import CPU_OF, Round
from loadtests.harness.corpus import corpus
from loadtests.harness.metering import NOT_IN_PRODUCTION
from loadtests.harness.networks import ARCHITECTURES
from loadtests.harness.results import (
    DOCS,
    README,
    describe_measurement,
    measure_busy_cores,
    median_of,
    processor_marker,
    write_between_markers,
    write_result,
)
from loadtests.harness.shaped_models import BenchmarkModel, benchmark_model
from loadtests.peers.aims import RATE_TARGETS, ratios
from loadtests.peers.processes import PYTHON
from loadtests.peers.systems import SystemGroup, system_groups
from serve_app.contracts.precision import Accuracy
from serve_app.errors import InvalidConfig
from serve_app.models.engines.processor import this_machine
from serve_app.models.registry import BUNDLED_MODEL

_WITH_AIMS = ("foreedge-http", "foreedge-queue", "bare-loop", "rembg-s")
_ALL = "all"

_WARM_UP_IMAGES = 8
_COUNT, _COUNTS = 80, {BUNDLED_MODEL: 384, "u2netp-close": 160, "u2netp-close-avx512_bf16": 160}
"""Images of a round, and those of tables with faster systems. A round of Foreedge takes about 20 s.
A run through the queue begins with its list of jobs and ends with its last ledger part, which with
40 images was a third of the time (docs/decisions/0028)."""
_ROUNDS = 5


def main() -> None:
    """Measure the models and systems that the command line names, and write the results."""
    options = _parse_arguments()
    console = Console()
    for name in options.models:
        content: dict[str, Any] = {
            **describe_measurement("loadtests.peers"),
            "photographs": options.photographs,
        }
        content["machine"]["peers"] = _peer_versions()
        for found in compare_systems(benchmark_model(name), options, console):
            # Written after every round, so that an interrupted comparison keeps its results.
            content |= found
            path = write_result(f"peers-{table_name(name, options.accuracy)}.json", content)
        console.print(table(content))
        systems = content["systems"]
        for line in (*ratios(table_name(name, options.accuracy), systems), *parts(systems)):
            console.print(line, highlight=False, soft_wrap=True)
        console.print(f"Written to {path}", highlight=False)
        if options.write_docs:
            write_documents(name, options.accuracy, content, console)


def table_name(model: str, accuracy: Accuracy | None) -> str:
    """Return the name of the table of a model with an accuracy, or with the default engine.

    A processor without AMX has tables of its own.
    """
    return processor_marker(f"{model}-{accuracy}" if accuracy else model, this_machine())


def write_documents(
    model: str, accuracy: Accuracy | None, content: dict[str, Any], console: Console
) -> None:
    """Write a model's table into the documents, and its ratio to ``rembg s`` by default.

    README.md has the ratio with the default engine on a processor with AMX.
    """
    name = table_name(model, accuracy)
    write_between_markers(DOCS, f"peers-{name}", markdown(name, content))
    console.print(f"Written into {DOCS}", highlight=False)
    if name == model and (line := headline(content)):
        write_between_markers(README, f"throughput-{model}", line)
        console.print(f"Written into {README}", highlight=False)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.peers", description="Compare Foreedge with other systems."
    )
    add = parser.add_argument
    models = (BUNDLED_MODEL, *ARCHITECTURES)
    add("--models", nargs="+", default=["u2netp"], choices=models, help="models")
    systems = f"names of the systems to compare, or {_ALL} (default: {' '.join(_WITH_AIMS)})"
    add("--systems", nargs="+", default=list(_WITH_AIMS), help=systems)
    accuracy = "serve Foreedge's fastest engine and precision with this accuracy (docs: close)"
    add("--accuracy", choices=get_args(Accuracy), help=accuracy)
    add("--photographs", default="1600x1200", help="set of images, or folder")
    counts = ", ".join(f"{count} for {name}" for name, count in _COUNTS.items())
    count = (
        f"images of a round (default: {counts}, else {_COUNT}; half for systems without a target)"
    )
    add("--count", type=int, help=count)
    rounds = f"rounds (default: {_ROUNDS}), at most three for systems without a target"
    add("--rounds", type=int, default=_ROUNDS, help=rounds)
    add("--write-docs", action="store_true", help=f"write the tables into {DOCS}")
    options = parser.parse_args()
    tables = {table_name(model, options.accuracy) for model in options.models}
    if options.write_docs and (others := sorted(tables - RATE_TARGETS.keys())):
        parser.error(f"the documents have no tables of {', '.join(others)}: leave out --write-docs")
    if not PYTHON.is_file():
        parser.error("the peers are not installed. Run make .venv-peers/installed first.")
    return options


def compare_systems(
    model: BenchmarkModel, options: argparse.Namespace, console: Console
) -> Iterator[dict[str, Any]]:
    """Yield the medians of every system with one model, after each round."""
    busy = measure_busy_cores()
    default_count = _COUNTS.get(table_name(model.name, options.accuracy), _COUNT)
    paths = corpus(options.photographs, options.count or default_count)
    console.print(f"{model.label}: {len(paths)} images, {busy} cores busy before")
    groups = system_groups(model, options.accuracy, console)
    how = {name: text for group in groups for name, text in group.how.items()}
    chosen = _choose(groups, options.systems)
    rounds: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    images: dict[str, int] = {}
    for number in range(options.rounds):
        for group in chosen if number % 2 == 0 else reversed(chosen):
            if group.rounds is not None and number >= group.rounds:
                continue
            for name, found in _measure(group, paths[: group.images(len(paths))]).items():
                images[name] = found.images
                rounds[name].append(found.numbers(NOT_IN_PRODUCTION) | found.cpu_of_parts())
                console.print(
                    f"  round {number + 1}  {name:18} {rounds[name][-1]['images_per_s']:.2f}/s",
                    highlight=False,
                )
        systems = {name: median_of(rounds[name]) for name in how if name in rounds}
        yield {
            "model": model.label,
            "cores_busy_before": busy,
            "rounds": {name: len(rounds[name]) for name in systems},
            "images": images,
            "how": {name: how[name] for name in systems},
            "systems": systems,
        }


def _choose(groups: list[SystemGroup], names: Sequence[str]) -> list[SystemGroup]:
    """Return the groups that have a system of these names, or every group for ``all``.

    Raises:
        InvalidConfig: A name is unknown.
    """
    if _ALL in names:
        return groups
    known = {name for group in groups for name in group.how}
    if unknown := sorted(set(names) - known):
        raise InvalidConfig(
            f"unknown systems: {', '.join(unknown)}. Known systems: {', '.join(sorted(known))}."
        )
    return [group for group in groups if set(names) & set(group.how)]


def _measure(group: SystemGroup, paths: Sequence[Path]) -> dict[str, Round]:
    """Start a group, warm up and measure each of its systems, and stop it."""
    with group.start() as systems:
        found = {}
        for name, measure in systems.items():
            measure(paths[:_WARM_UP_IMAGES])
            found[name] = measure(paths)
        return found


def parts(systems: dict[str, dict[str, float]]) -> list[str]:
    """Return a line for each system of several processes: the CPU time of each part of it."""
    lines = []
    for name, numbers in systems.items():
        ms = {
            key.removeprefix(CPU_OF): 1000 * seconds
            for key, seconds in sorted(numbers.items(), key=lambda each: -each[1])
            if key.startswith(CPU_OF)
        }
        if len(ms) > 1:
            apart = [f"{part} {ms.pop(part):.0f}" for part in NOT_IN_PRODUCTION if part in ms]
            counted = ", ".join(f"{part} {spent:.1f}" for part, spent in ms.items())
            line = f"{name}, CPU ms for each image: {counted}"
            lines.append(f"{line}; not counted: {', '.join(apart)}" if apart else line)
    return lines


_COLUMNS = {
    "images/s": ("images_per_s", "{:.2f}"),
    "p50 s": ("p50_s", "{:.2f}"),
    "p95 s": ("p95_s", "{:.2f}"),
    "CPU s/image": ("cpu_s_per_image", "{:.3f}"),
    "peak MB": ("peak_rss_mb", "{:.0f}"),
    "PNG MB": ("png_mb_per_image", "{:.2f}"),
}


def rows(found: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a table of systems, with the ratio of images/s to ``rembg s``."""
    systems = found["systems"]
    base = systems.get("rembg-s", {}).get("images_per_s")
    lines = []
    for name, numbers in systems.items():
        cells = [form.format(numbers[key]) for key, form in _COLUMNS.values()]
        ratio = f"{numbers['images_per_s'] / base:.2f}" if base else "-"
        measured = f"{found['rounds'][name]} x {found['images'][name]}"
        lines.append([name, *cells, ratio, measured, found["how"][name]])
    return lines


def table(found: dict[str, Any]) -> Table:
    """Return a table of systems for the terminal."""
    result = Table(title=found["model"], box=None, padding=(0, 1, 0, 0))
    result.add_column("", no_wrap=True)
    for name in (*_COLUMNS, "x rembg s"):
        result.add_column(name, justify="right")
    for row in rows(found):
        result.add_row(*row[:-2])
    return result


def headline(content: dict[str, Any]) -> str | None:
    """Return the line for README.md, or None if a system that it compares was not measured."""
    systems, machine = content["systems"], content["machine"]
    if not {"foreedge-http", "rembg-s"} <= systems.keys():
        return None
    ratio, by_queue = (
        systems[name]["images_per_s"] / systems["rembg-s"]["images_per_s"]
        if name in systems
        else None
        for name in ("foreedge-http", "foreedge-queue")
    )
    queue = "" if by_queue is None else f", {by_queue:.2f} times by the queue"
    return (
        f"- **{ratio:.2f} times the images/s of `rembg s`** over HTTP with {content['model']}"
        f"{queue}, on the same {machine['cores']} cores\n"
        "  ([performance](docs/performance.md#compared-with-other-systems))."
    )


def markdown(name: str, content: dict[str, Any]) -> str:
    """Return the table of a name for a document."""
    machine = content["machine"]
    ours = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    theirs = ", ".join(f"{name} {number}" for name, number in machine["peers"].items())
    titles = ["system", *_COLUMNS, "x `rembg s`", "rounds x images", "how it was run"]
    lines = [
        f"**{content['model']}**, medians over rounds. `{content['command']}`, "
        f"{content['measured_at'][:10]}, {machine['cpu']}, {machine['cores']} cores, "
        f"{content['cores_busy_before']:g} of them busy with other work before, "
        f"{machine['memory_gb']:g} GB, Python {machine['python']}. "
        f"Images: {content['photographs']}. Ours: {ours}. Peers: {theirs}.",
        "",
        f"| {' | '.join(titles)} |",
        "|---|" + "---:|" * (len(titles) - 2) + "---|",
        *(f"| {' | '.join(row)} |" for row in rows(content)),
        "",
        *(f"- {line}" for line in ratios(name, content["systems"])),
        *(f"- {line}" for line in parts(content["systems"])),
    ]
    return "\n".join(lines)


def _peer_versions() -> dict[str, str]:
    names = ("rembg", "onnxruntime", "Pillow", "numpy", "litserve", "mosec")
    program = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    done = subprocess.run([PYTHON, "-c", program, *names], check=True, stdout=subprocess.PIPE)
    found: dict[str, str] = json.loads(done.stdout)
    return found
