"""Memory over a long run: ``python -m loadtests.benchmarks.soak`` (``make soak``).

Photographs of mixed sizes go over HTTP through one pipeline replica and one Segmenter; their
resident memory is looked at every second. After the warm-up it must not grow: the median of the
last tenth of the run is compared with that of the tenth after the warm-up. What is freed is kept
for the next image, so that memory is what the most that was ever held at once took: the run begins
with the largest photograph from every client at once, or chance would bring that late.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import Progress

from loadtests.harness.application import post_all, running
from loadtests.harness.corpus import corpus
from loadtests.harness.metering import ray_part
from loadtests.harness.results import machine, write
from loadtests.harness.shaped_models import benchmark_model

PLOT = Path("docs/images/soak.png")

_WATCHED = ("CutoutPipeline", "Segmenter")
_DIFFERENT = 48
_CLIENTS = 4
_LARGEST_EACH = 5
_LEAST = 200
_INTERVAL_S = 1.0
_WARM_SHARE, _WINDOW_SHARE = 0.2, 0.1
_LIMIT = 0.05
# A photograph without a subject is an answer too.
_ACCEPTED = (200, 422)

Samples = dict[str, list[tuple[int, float]]]
"""By deployment: images answered so far, and resident memory in MB."""


class Watch(threading.Thread):
    """Looks at the replicas' memory until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: Samples = defaultdict(list)
        self.answered = 0
        self._numbers = itertools.count(1)
        self._ended = threading.Event()
        self._replicas = {
            part: process
            for process in psutil.Process(os.getpid()).children(recursive=True)
            if (part := ray_part(" ".join(process.cmdline()))) in _WATCHED
        }

    def count(self) -> None:
        """Count one more answer."""
        self.answered = next(self._numbers)

    def run(self) -> None:
        """Sample."""
        while not self._ended.wait(_INTERVAL_S):
            for part, process in self._replicas.items():
                self.samples[part].append((self.answered, process.memory_info().rss / 1e6))

    def stop(self) -> None:
        """End the sampling."""
        self._ended.set()
        self.join()


def growth(samples: list[tuple[int, float]]) -> tuple[float, float, float]:
    """Return memory after the warm-up and at the end, in MB, and by what share it grew."""
    images = samples[-1][0]
    first, window = _WARM_SHARE * images, _WINDOW_SHARE * images
    warm = statistics.median(mb for n, mb in samples if first <= n <= first + window)
    end = statistics.median(mb for n, mb in samples if n >= images - window)
    return warm, end, end / warm - 1


def plot(samples: Samples, title: str, path: Path) -> None:
    """Draw memory over images."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), dpi=110)
    for part, values in samples.items():
        axes.plot([n for n, _ in values], [mb for _, mb in values], label=part, linewidth=1)
    warm = _WARM_SHARE * max(values[-1][0] for values in samples.values())
    axes.axvline(warm, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="images", ylabel="resident memory, MB", title=title, ylim=(0, None))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")
    pyplot.close(figure)


def main() -> None:
    """Run, write ``out/bench/soak.json`` and the plot; exit with 1 where memory grew."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.benchmarks.soak")
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--model", default="folio")
    parser.add_argument("--photographs", default="mixed", help="set or folder")
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args()
    count = max(_LEAST, options.images)
    console = Console()
    model = benchmark_model(options.model)
    different = [path.read_bytes() for path in corpus(options.photographs, _DIFFERENT)]
    largest = [max(different, key=len)] * (_CLIENTS * _LARGEST_EACH)
    images = list(itertools.islice(itertools.chain(largest, itertools.cycle(different)), count))
    with running(model.settings, queue=False) as app:
        watch = Watch()
        watch.start()
        started_at = time.perf_counter()
        url = f"{app.url}/v1/cutout?min_subject_px=0"
        with Progress(console=console) as bar:
            task = bar.add_task("Photographs", total=len(images))

            def answered() -> None:
                watch.count()
                bar.advance(task)

            post_all(url, images, _CLIENTS, accepted=_ACCEPTED, on_answer=answered)
        wall_s = time.perf_counter() - started_at
        watch.stop()
    found: dict[str, Any] = {}
    for part, samples in sorted(watch.samples.items()):
        warm, end, grew = growth(samples)
        found[part] = {"warm_mb": warm, "end_mb": end, "growth": grew}
        verdict = "bounded" if grew < _LIMIT else "GROWS"
        console.print(f"{part}: {warm:.0f} MB, then {end:.0f} MB: {grew:+.1%}, {verdict}")
    console.print(f"{count} images in {wall_s:.0f} s")
    title = f"{count} photographs of mixed sizes, {model.label}"
    plot(watch.samples, title, options.plot)
    content = {
        "machine": machine(),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["python -m loadtests.benchmarks.soak", *sys.argv[1:]]),
        "images": count,
        "wall_s": wall_s,
        "replicas": found,
        "samples_mb": watch.samples,
    }
    console.print(f"Written to {write('soak.json', content)} and {options.plot}")
    sys.exit(any(one["growth"] >= _LIMIT for one in found.values()))


if __name__ == "__main__":
    main()
