"""Memory over a long run: ``python -m loadtests.benchmarks.soak`` (``make soak``).

Images of mixed sizes go over HTTP through one pipeline replica and one Segmenter, whose resident
memory is sampled every second. After the warm-up it must not grow: the median of the last tenth of
the run is compared with that of the tenth after the warm-up.

The replicas keep freed memory for the next image, so that their size is that of the most memory
they ever needed at once. The run therefore starts with the largest image from every client at the
same time. Otherwise chance would bring that moment late.
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
from typing import Any, Self, get_args

import psutil
import urllib3
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from loadtests.harness.application import engine_settings, post_all, running_application
from loadtests.harness.corpus import corpus
from loadtests.harness.metering import ray_part
from loadtests.harness.results import OUT, describe_measurement, write_result
from loadtests.harness.shaped_models import benchmark_model
from serve_app.contracts.precision import Accuracy
from serve_app.errors import ForeedgeError, InternalError

PLOT = Path("docs/images/soak.png")

_WATCHED = ("CutoutPipeline", "Segmenter")
_DIFFERENT_IMAGES = 48
_CLIENTS = 4
_LARGEST_PER_CLIENT = 5
_MIN_IMAGES = 200
_INTERVAL_S = 1.0
_WARM_SHARE, _WINDOW_SHARE = 0.2, 0.1
_MAX_GROWTH = 0.05
# An image without a subject gets a 422.
_ACCEPTED = (200, 422)

Samples = dict[str, list[tuple[int, float]]]
"""Pairs of images answered so far and resident memory in MB, for each deployment."""


class MemoryWatch(threading.Thread):
    """A context manager whose thread samples the replicas' memory.

    Its end raises InternalError if a replica has ended meanwhile, which is why the requests failed.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: Samples = defaultdict(list)
        self.answered = 0
        self.ended: str | None = None
        """Deployment whose replica ended, after which nothing is sampled."""
        self._numbers = itertools.count(1)
        self._stopped = threading.Event()
        self._replicas = {
            part: process
            for process in psutil.Process(os.getpid()).children(recursive=True)
            if (part := ray_part(" ".join(process.cmdline()))) in _WATCHED
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        self.join()
        # A replica may have ended since the last interval. Ctrl-C ends them all, and is no news.
        is_interrupt = kind is not None and not issubclass(kind, Exception)
        if not self._sample() and not is_interrupt:
            raise InternalError(
                f"the replica of {self.ended} ended, so that its memory says nothing. The system's "
                "log says whether for lack of memory"
            )

    def count(self) -> None:
        """Count one more answer."""
        self.answered = next(self._numbers)

    def run(self) -> None:
        """Sample the memory at regular intervals."""
        while not self._stopped.wait(_INTERVAL_S) and self._sample():
            pass

    def _sample(self) -> bool:
        """Take one sample of each replica, and return whether all of them run."""
        for part, process in self._replicas.items():
            try:
                resident_mb = process.memory_info().rss / 1e6
            except psutil.NoSuchProcess:
                self.ended = part
                return False
            self.samples[part].append((self.answered, resident_mb))
        return True


def growth(samples: list[tuple[int, float]]) -> tuple[float, float, float]:
    """Return the memory after the warm-up and at the end, in MB, and the share by which it grew."""
    images = samples[-1][0]
    first, window = _WARM_SHARE * images, _WINDOW_SHARE * images
    warm = statistics.median(mb for n, mb in samples if first <= n <= first + window)
    end = statistics.median(mb for n, mb in samples if n >= images - window)
    return warm, end, end / warm - 1


def plot_memory(samples: Samples, title: str, path: Path) -> None:
    """Draw memory over images."""
    figure = Figure(figsize=(8, 3.6), dpi=110)
    axes: Axes = figure.subplots()
    for part, values in samples.items():
        axes.plot([n for n, _ in values], [mb for _, mb in values], label=part, linewidth=1)
    warm = _WARM_SHARE * max(values[-1][0] for values in samples.values())
    axes.axvline(warm, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="images", ylabel="resident memory, MB", title=title, ylim=(0, None))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")


def main() -> None:
    """Run, write a result and the plot into files, and exit with 1 if memory grew."""
    options = _parse_arguments()
    console = Console()
    model = benchmark_model(options.model)
    images = _choose_images(options.photographs, max(_MIN_IMAGES, options.images))
    settings = {**model.settings, "segmenter": engine_settings(options.accuracy)}
    with running_application(settings, queue=False) as app:
        served = urllib3.request("GET", f"{app.url}/v1/models").json()["models"][0]
        pair = f"{served['engine']} {served['precision']}"
        chosen = f"{model.label}, {pair}: {served['chosen_because']}"
        # The reason may name an extra in brackets.
        console.print(chosen, markup=False, highlight=False)
        wall_s, samples = _run(f"{app.url}/v1/cutout?min_subject_px=0", images, console)
    replicas: dict[str, Any] = {}
    for part, values in sorted(samples.items()):
        warm, end, grew = growth(values)
        replicas[part] = {"warm_mb": warm, "end_mb": end, "growth": grew}
        verdict = "bounded" if grew < _MAX_GROWTH else "GROWS"
        console.print(f"{part}: {warm:.0f} MB, then {end:.0f} MB: {grew:+.1%}, {verdict}")
    console.print(f"{len(images)} images in {wall_s:.0f} s")
    name = "soak" if options.accuracy is None else f"soak-{model.name}-{options.accuracy}"
    plot = options.plot or (PLOT if options.accuracy is None else OUT / f"{name}.png")
    title = f"{len(images)} images, {model.label}, {pair}"
    plot_memory(samples, title, plot)
    content = {
        **describe_measurement("loadtests.benchmarks.soak"),
        "pair": pair,
        "images": len(images),
        "wall_s": wall_s,
        "replicas": replicas,
        "samples_mb": samples,
    }
    console.print(f"Written to {write_result(f'{name}.json', content)} and {plot}")
    sys.exit(any(replica["growth"] >= _MAX_GROWTH for replica in replicas.values()))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.soak",
        description="Check that the replicas' memory does not grow over a long run.",
    )
    parser.add_argument("--images", type=int, default=2_000, help="number of images")
    parser.add_argument("--model", default="folio", help="name of a benchmark model")
    accuracy = "serve the fastest engine and precision with this accuracy instead of the default"
    parser.add_argument("--accuracy", choices=get_args(Accuracy), help=accuracy)
    parser.add_argument("--photographs", default="mixed", help="set of images, or folder")
    plot = f"file of the plot (default: {PLOT}, or one in {OUT} with --accuracy)"
    parser.add_argument("--plot", type=Path, help=plot)
    return parser.parse_args()


def _choose_images(name: str, count: int) -> list[bytes]:
    """Return so many image files, with the largest one first for every client."""
    different = [path.read_bytes() for path in corpus(name, _DIFFERENT_IMAGES)]
    largest = [max(different, key=len)] * (_CLIENTS * _LARGEST_PER_CLIENT)
    return list(itertools.islice(itertools.chain(largest, itertools.cycle(different)), count))


def _run(url: str, images: list[bytes], console: Console) -> tuple[float, Samples]:
    """Post the images, and return the seconds that it took and the memory samples."""
    with MemoryWatch() as watch, Progress(console=console) as bar:
        started_at = time.perf_counter()
        task = bar.add_task("Images", total=len(images))

        def count_response() -> None:
            watch.count()
            bar.advance(task)

        post_all(url, images, _CLIENTS, accepted=_ACCEPTED, on_response=count_response)
        wall_s = time.perf_counter() - started_at
    return wall_s, watch.samples


if __name__ == "__main__":
    try:
        main()
    except ForeedgeError as error:
        sys.exit(f"error: {error.code}: {error.message}")
