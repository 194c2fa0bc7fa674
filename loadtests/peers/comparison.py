"""Foreedge and its peers side by side: ``python -m loadtests.peers`` (``make bench-peers``).

The same photographs, the same weights and the same machine. Every round starts each system anew,
warms it and measures it while no other one runs; the next round goes in the other direction.
Medians over the rounds go to the terminal, to ``out/bench/peers.json`` and, with ``--write-docs``,
into docs/performance.md. The peers live in an environment of their own, ``.venv-peers``.
"""

from __future__ import annotations

import argparse
import json
import operator
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.harness.application import Round
from loadtests.harness.corpus import corpus
from loadtests.harness.metering import NOT_OURS
from loadtests.harness.results import (
    DOCS,
    between_markers,
    busy_elsewhere,
    machine,
    median_of,
    write,
)
from loadtests.harness.shaped_models import ARCHITECTURES, BenchmarkModel, benchmark_model
from loadtests.peers.systems import PYTHON, Group, groups
from serve_app.models.registry import BUNDLED_MODEL

_Ratio = tuple[tuple[str, str], float | None]

_TARGETS: dict[str, tuple[_Ratio, ...]] = {
    BUNDLED_MODEL: (
        (("foreedge-http", "rembg-s"), 3.0),
        (("foreedge-queue", "foreedge-http"), None),
    ),
    "u2netp": (
        (("foreedge-http", "rembg-s"), 2.0),
        (("foreedge-queue", "foreedge-http"), 0.9),
        (("foreedge-http", "replaced-worker"), 3.0),
    ),
}
"""Ratios of images/s that Foreedge aims at, on photographs of 1600 x 1200; None: no aim."""
_CPU_AIMS = {"u2netp": 1.15}
"""At most so many times the CPU seconds of the bare loop."""

_WARM = 8
_COUNT, _COUNT_BUNDLED = 48, 192
"""Images of a round: seconds of each system, with the first and the last images a small part."""
_ROUNDS = 5


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.peers")
    parser.add_argument("--models", nargs="+", default=[BUNDLED_MODEL, "u2netp"])
    parser.add_argument("--systems", nargs="+", help="some of them only")
    parser.add_argument("--photographs", default="1600x1200", help="set or folder")
    counts = (
        f"of images in a round; {_COUNT_BUNDLED} of {BUNDLED_MODEL}, {_COUNT} of others; "
        "half where no aim is close"
    )
    parser.add_argument("--count", type=int, help=counts)
    rounds = f"{_ROUNDS}; three where no aim is close"
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help=rounds)
    parser.add_argument("--write-docs", action="store_true", help=f"write the table into {DOCS}")
    options = parser.parse_args()
    if not PYTHON.is_file():
        parser.error("the peers are not installed: make .venv-peers/installed")
    for name in options.models:
        if name != BUNDLED_MODEL and name not in ARCHITECTURES:
            parser.error(f"unknown model {name}")
    console = Console()
    content: dict[str, Any] = {
        "machine": {**machine(), "peers": _peer_versions()},
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["python -m loadtests.peers", *sys.argv[1:]]),
        "photographs": options.photographs,
        "systems": {},
        "models": {},
    }
    for name in options.models:
        model = benchmark_model(name)
        for found in compare(model, options, console):
            # After every round, so that a run that is broken off leaves what it has.
            content["models"][name] = found
            content["systems"] = found["systems"]
            path = write("peers.json", content)
        console.print(table(found))
        for line in ratios(name, found["systems"]):
            console.print(line, highlight=False, soft_wrap=True)
    console.print(f"Written to {path}", highlight=False)
    if options.write_docs:
        DOCS.write_text(between_markers(DOCS.read_text(), "peers", markdown(content)))
        console.print(f"Written into {DOCS}", highlight=False)


def compare(
    model: BenchmarkModel, options: argparse.Namespace, console: Console
) -> Iterator[dict[str, Any]]:
    """Yield the medians of every system with one model, after each round."""
    busy = busy_elsewhere()
    usual = _COUNT_BUNDLED if model.name == BUNDLED_MODEL else _COUNT
    paths = corpus(options.photographs, options.count or usual)
    console.print(f"{model.label}: {len(paths)} photographs, {busy} cores busy before")
    rounds: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    chosen = groups(model, console)
    how = {name: text for group in chosen for name, text in group.how.items()}
    if unknown := sorted(set(options.systems or ()) - set(how)):
        sys.exit(f"no such systems: {', '.join(unknown)}; there are {', '.join(how)}")
    images: dict[str, int] = {}
    for number in range(options.rounds):
        for group in chosen if number % 2 == 0 else reversed(chosen):
            if group.rounds is not None and number >= group.rounds:
                continue
            if options.systems and not set(options.systems) & set(group.how):
                continue
            for name, found in _measured(group, paths[: group.images(len(paths))]).items():
                images[name] = found.images
                rounds[name].append(found.numbers(NOT_OURS))
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


def _measured(group: Group, paths: Sequence[Path]) -> dict[str, Round]:
    """Start a group, warm it, measure each of its systems, and stop it."""
    with group.start() as systems:
        found = {}
        for name, measure in systems.items():
            measure(paths[:_WARM])
            found[name] = measure(paths)
        return found


def ratios(name: str, systems: dict[str, dict[str, float]]) -> list[str]:
    """Return a line for each ratio that is aimed at, with what was found."""
    lines = []
    for (ours, other), aim in _TARGETS.get(name, ()):
        if ours in systems and other in systems:
            ratio = systems[ours]["images_per_s"] / systems[other]["images_per_s"]
            line = f"{ours} is {ratio:.2f} x {other}"
            lines.append(line + _verdict(ratio, operator.ge, aim))
    for ours in ("foreedge-http", "foreedge-queue"):
        if ours in systems and "bare-loop" in systems:
            cpu_s, bare_s = (systems[n]["cpu_s_per_image"] for n in (ours, "bare-loop"))
            ratio = cpu_s / bare_s
            line = f"{ours} takes {ratio:.2f} x the CPU seconds of the bare loop"
            lines.append(line + _verdict(ratio, operator.le, _CPU_AIMS.get(name)))
    return lines


def _verdict(ratio: float, within: Callable[[float, float], bool], aim: float | None) -> str:
    if aim is None:
        return ""
    return f" (aim {aim:g} x: {'reached' if within(ratio, aim) else 'MISSED'})"


_COLUMNS = {
    "images/s": ("images_per_s", "{:.2f}"),
    "p50 s": ("p50_s", "{:.2f}"),
    "p95 s": ("p95_s", "{:.2f}"),
    "CPU s/image": ("cpu_s_per_image", "{:.3f}"),
    "peak MB": ("peak_rss_mb", "{:.0f}"),
    "PNG MB": ("png_mb_per_image", "{:.2f}"),
}


def rows(found: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a table of systems; the ratio is to ``rembg s``."""
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
    """Return a table for the terminal."""
    result = Table(title=found["model"], box=None, padding=(0, 1, 0, 0))
    result.add_column("", no_wrap=True)
    for name in (*_COLUMNS, "x rembg s"):
        result.add_column(name, justify="right")
    for row in rows(found):
        result.add_row(*row[:-2])
    return result


def markdown(content: dict[str, Any]) -> str:
    """Return the tables of a document."""
    about = content["machine"]
    ours = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    theirs = ", ".join(f"{name} {number}" for name, number in about["peers"].items())
    lines = [
        f"`{content['command']}`, {content['measured_at'][:10]}; {about['cpu']}, "
        f"{about['cores']} cores, {about['memory_gb']:g} GB, Python {about['python']}. "
        f"Photographs: {content['photographs']}. Ours: {ours}. Peers: {theirs}.",
    ]
    for name, found in content["models"].items():
        lines += [
            "",
            f"**{found['model']}**, medians over rounds:",
            "",
        ]
        titles = ["system", *_COLUMNS, "x `rembg s`", "rounds x images", "how it was run"]
        lines.append(f"| {' | '.join(titles)} |")
        lines.append("|---|" + "---:|" * (len(titles) - 2) + "---|")
        lines += [f"| {' | '.join(row)} |" for row in rows(found)]
        lines.append("")
        lines += [f"- {line}" for line in ratios(name, found["systems"])]
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
