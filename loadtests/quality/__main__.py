"""Quality of the masks of each model and recipe: ``python -m loadtests.quality``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from loadtests.harness.results import (
    describe_machine,
    describe_measurement,
    measure_busy_cores,
    write_between_markers,
    write_result,
)
from loadtests.quality.cascade import cross_fit
from loadtests.quality.cutouts import fetch_packages
from loadtests.quality.evaluation import System, evaluate, weights_precision
from loadtests.quality.figure import FIGURE, draw_reliability
from loadtests.quality.packages import Package
from loadtests.quality.page import write_worst
from loadtests.quality.sets import write_book_set, write_cutout_set
from loadtests.quality.tables import (
    CascadeResult,
    Evaluation,
    Weights,
    as_json,
    cascade_text,
    confidence_table,
    masks_table,
    material_text,
)
from serve_app.config import AppConfig
from serve_app.errors import ForeedgeError, ModelUnavailable
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.registry import BUNDLED_MODEL, locate_weights

DOCS = Path("docs/quality.md")
RECIPES = Path("docs/recipes.md")

CASCADE = (BUNDLED_MODEL, "u2netp")

_PLAIN = "plain"
_COMPARED = 24
"""Number of images of a set that are compared with rembg's own result."""
_MATTED_BY_REMBG = 4
"""Number of those if rembg mattes them, which takes seconds for each."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of images of the sets. The defaults use each stamp of the test part twice."""

    cutouts: int = 98
    books: int = 36


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that was measured."""

    packages: list[Package]
    weights: list[Weights]
    evaluations: list[Evaluation]
    """Evaluations of the test part and of the drawn books."""
    cascade: CascadeResult | None
    """Result of the cascade. None unless both of its models were measured."""

    def plain(self, models: Sequence[str]) -> list[Evaluation]:
        """Return the evaluations of single models with the plain recipe."""
        return [
            each
            for each in self.evaluations
            if each.system.name == _PLAIN and each.system.models[0] in models
        ]


def systems_of(model: str) -> list[System]:
    """Return a model with each recipe."""
    return [
        System(_PLAIN, (model,), {}, _COMPARED),
        System("post_process_mask", (model,), {"post_process_mask": True}, _COMPARED),
        System("closed_form", (model,), {"matting": "closed_form"}, _MATTED_BY_REMBG),
    ]


def available_models() -> list[str]:
    """Return the models whose weights are on this machine."""
    config = AppConfig.load()
    found = []
    for name in MODEL_FACTS:
        try:
            locate_weights(name, config)
        except ModelUnavailable:
            continue
        found.append(name)
    return found


def describe_weights(models: Sequence[str]) -> list[Weights]:
    """Return the digests and precisions of models."""
    located = [locate_weights(name, AppConfig.load()) for name in models]
    return [Weights(each.name, weights_precision(each.path), each.sha256) for each in located]


def measure(models: Sequence[str], counts: Counts) -> Measured:
    """Measure models on the test part and on drawn books.

    Args:
        models: Names of models.
        counts: Numbers of images.

    Raises:
        ForeedgeError: The packages or the weights are unavailable.
    """
    weights, packages = describe_weights(models), fetch_packages()
    sets = [write_cutout_set(packages, "test", counts.cutouts), write_book_set(counts.books)]
    context = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        systems = [system for model in models for system in systems_of(model)]
        done = _evaluate(pool, sets, systems)
        cascade = None
        if set(CASCADE) <= set(models):
            first, last = (_find(done, (name,)) for name in CASCADE)
            fit = cross_fit(first.scores, last.scores)
            recipe = {"checks": {"min_confidence": fit.min_confidence}}
            done += _evaluate(pool, sets, [System("cascade", CASCADE, recipe)])
            cascade = CascadeResult(fit, _find(done, CASCADE), last)
    order = {folder.name: place for place, folder in enumerate(sets)}
    done.sort(key=lambda each: order[each.images])
    return Measured(packages, weights, done, cascade)


def _evaluate(pool: Executor, sets: Sequence[Path], systems: Sequence[System]) -> list[Evaluation]:
    pending = [
        (folder, system, pool.submit(evaluate, folder, system))
        for folder in sets
        for system in systems
    ]
    return [Evaluation(folder.name, system, job.result()) for folder, system, job in pending]


def _find(done: Sequence[Evaluation], models: tuple[str, ...]) -> Evaluation:
    """Return the first evaluation of these models: that of the test part, with the plain recipe."""
    return next(each for each in done if each.system.models == models)


def docs_block(found: Measured, command: str, busy: float) -> str:
    """Return the generated part of docs/quality.md.

    Args:
        found: What was measured.
        command: Command that measured it.
        busy: Cores that other work kept busy before.
    """
    machine = describe_machine()
    parts = [
        f"`{command}` on {machine['cpu']}, {machine['cores']} cores, {busy:g} of them busy with "
        f"other work before. ONNX Runtime {machine['versions']['onnxruntime']}."
    ]
    names = list(dict.fromkeys(each.images for each in found.evaluations))
    for name in names:
        some = [each for each in found.evaluations if each.images == name]
        parts.append(f"**{name}**, {len(some[0].scores)} images:")
        parts.append(masks_table(some, found.weights))
    plain = found.plain([each.model for each in found.weights])
    parts += ["**Confidence of the plain masks:**", confidence_table(plain)]
    if found.cascade is not None:
        parts += ["**Cascade:**", cascade_text(found.cascade)]
    parts += ["**Measured with:**", material_text(found.packages, found.weights)]
    return "\n\n".join(parts)


def main() -> None:
    """Measure, print the tables, and write the results and the page of the worst masks."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.quality",
        description="Measure the masks of models and recipes on images with true masks.",
    )
    parser.add_argument("--model", action="append", help="repeatable; default: all that are here")
    parser.add_argument("--count", type=int, help="images of each set, fewer for a quick look")
    parser.add_argument("--write-docs", action="store_true", help=f"write {DOCS} and {RECIPES}")
    options = parser.parse_args()
    models = options.model or available_models()
    if options.write_docs and not set(CASCADE) <= set(models):
        parser.error(
            f"--write-docs needs the weights of {' and '.join(CASCADE)}: run `foreedge models "
            f"fetch {CASCADE[1]}`"
        )
    busy = measure_busy_cores()
    counts = Counts(options.count, options.count) if options.count else Counts()
    found = measure(models, counts)
    measurement = describe_measurement("loadtests.quality")
    content = as_json(found.evaluations, found.packages, found.weights)
    write_result("quality.json", {**measurement, **content})
    text = docs_block(found, measurement["command"], busy)
    print(text)
    shown = [each for each in found.evaluations if each.system.name in (_PLAIN, "cascade")]
    page = write_worst(shown, f"Measured at {measurement['measured_at']}.")
    print(f"\nworst masks: {page}")
    if options.write_docs:
        write_between_markers(DOCS, "quality", text)
        if found.cascade is not None:
            write_between_markers(RECIPES, "cascade", cascade_text(found.cascade))
        draw_reliability(found.plain(CASCADE)[:2], FIGURE)


if __name__ == "__main__":
    try:
        main()
    except ForeedgeError as error:
        sys.exit(f"error: {error.code}: {error.message}")
