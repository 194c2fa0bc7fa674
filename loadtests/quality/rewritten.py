"""Compare rewritten graphs with their files ahead of time, for the start of replicas.

``python -m loadtests.quality.rewritten --write-records`` writes what the package ships
(``serve_app.models.engines.compared``): the graphs that a replica need not compare itself. Records
of other processors stay as long as the version of ONNX Runtime does. A new version of ONNX Runtime
or another rewriting needs them again, which a test says.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from hashlib import sha256

from ingest.cli.gate import bundled_images
from serve_app.config import AppConfig, SegmenterConfig
from serve_app.imaging.mask import resize_for_model
from serve_app.imaging.pixels import Pixels
from serve_app.models.engines.compared import (
    ComparedGraph,
    float32_kernels,
    read_records,
    write_records,
)
from serve_app.models.engines.onnx_runtime import (
    MAX_LEVELS_APART,
    most_levels_apart,
    open_as_written,
    probe_image,
)
from serve_app.models.engines.processor import Machine, this_machine
from serve_app.models.facts import ModelFacts
from serve_app.models.graph_rewrites import optimize_for_cpu
from serve_app.models.inference import normalize_images, stretch_to_masks
from serve_app.models.registry import BUNDLED_MODEL, Weights, locate_weights


def compare(
    weights: Weights, images: Sequence[Pixels], machine: Machine
) -> tuple[ComparedGraph, ...]:
    """Return how far the masks of a model's rewritten graphs are from those of its file.

    Args:
        weights: The model.
        images: Images of the model's size, each uint8 [1, S, S, 3].
        machine: This machine.

    Returns:
        A record of the graph that takes one image, and one of that which takes several.
    """
    forms = (False, True)
    graphs = [optimize_for_cpu(weights.path, batches=batches) for batches in forms]
    config = SegmenterConfig(threads=1)
    file = open_as_written(weights.path, config)
    rewritten = [open_as_written(graph, config) for graph in graphs]
    levels = [0 for _ in forms]
    for image in images:
        tensor = normalize_images(image, weights.facts)
        expected = stretch_to_masks(file.run(tensor), weights.facts)
        for index, network in enumerate(rewritten):
            mask = stretch_to_masks(network.run(tensor), weights.facts)
            levels[index] = max(levels[index], most_levels_apart(mask, expected))
    return tuple(
        ComparedGraph(
            model=weights.name,
            source_sha256=weights.sha256,
            batches=batches,
            rewritten_sha256=sha256(graph).hexdigest(),
            onnxruntime=machine.onnxruntime,
            architecture=machine.architecture,
            kernels=float32_kernels(machine),
            images=len(images),
            levels=most,
        )
        for batches, graph, most in zip(forms, graphs, levels, strict=True)
    )


def merged(
    found: Sequence[ComparedGraph], others: Sequence[ComparedGraph]
) -> tuple[ComparedGraph, ...]:
    """Return new records with those of before that they do not replace, in a stable order.

    Args:
        found: New records.
        others: Records of before. Those of another version of ONNX Runtime are dropped.
    """
    versions = {one.onnxruntime for one in found}
    kept = {_subject(one): one for one in others if one.onnxruntime in versions}
    kept.update({_subject(one): one for one in found})
    return tuple(kept[subject] for subject in sorted(kept))


def _subject(one: ComparedGraph) -> tuple[str, bool, str, tuple[str, ...]]:
    return one.model, one.batches, one.architecture, one.kernels


def _squares(facts: ModelFacts) -> list[Pixels]:
    images = [resize_for_model(each.rgb, facts.size_px)[None] for each in bundled_images()]
    return [probe_image(facts.size_px), *images]


def main() -> None:
    """Compare the models that the command line names, and print or write the records."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.quality.rewritten",
        description="Compare rewritten graphs with their files.",
    )
    default = [BUNDLED_MODEL, "u2netp"]
    parser.add_argument("--models", nargs="+", default=default, help="names of models")
    parser.add_argument("--write-records", action="store_true", help="write what is shipped")
    options = parser.parse_args()
    machine, found = this_machine(), list[ComparedGraph]()
    for name in options.models:
        weights = locate_weights(name, AppConfig.load())
        found += compare(weights, _squares(weights.facts), machine)
    for record in found:
        print(record.model_dump_json(indent=2))
        if record.levels > MAX_LEVELS_APART:
            parser.error(f"the masks of {record.model} differ by {record.levels} grey levels")
    if options.write_records:
        write_records(merged(found, read_records()))


if __name__ == "__main__":
    main()
