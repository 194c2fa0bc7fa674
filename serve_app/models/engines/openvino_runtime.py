"""OpenVINO: the second engine, which computes in bfloat16 or, on arm64, in float16."""

from __future__ import annotations

import importlib.util
from collections import deque
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from serve_app.contracts.precision import Precision
from serve_app.models.engines.network import Tensor

_CONVOLUTIONS = {"Convolution", "GroupConvolution"}
"""Types of layers in OpenVINO's report of what it runs."""
PRECISION_NAMES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""OpenVINO's names of precisions, which its names of kernels end with."""
_HINT = "INFERENCE_PRECISION_HINT"


def openvino_version() -> str | None:
    """Return the version of OpenVINO, or None if it is not installed."""
    try:
        return version("openvino") if importlib.util.find_spec("openvino") else None
    except PackageNotFoundError:
        # Any folder of that name on the path is such a module.
        return None


class OpenVinoNetwork:
    """A graph that OpenVINO runs on the CPU, one image at a time on one thread."""

    def __init__(self, graph: Path | bytes, precision: Precision, threads: int) -> None:
        """Compile a graph, which takes about a second.

        Args:
            graph: ONNX file or its content. An open batch axis is fixed at one image.
            precision: Precision of the sums.
            threads: Number of images that run at the same time.

        Raises:
            ImportError: OpenVINO is not installed, or not for this C library.
            ValueError: OpenVINO takes another precision on this processor.
            Exception: OpenVINO cannot compile the graph.
        """
        # Lazy: it takes 0.1 s and 60 MB, and is an extra.
        import openvino

        core = openvino.Core()
        model = core.read_model(graph)
        shape = model.inputs[0].partial_shape
        if shape.is_dynamic:
            shape[0] = 1
            model.reshape(shape)
        self._compiled = core.compile_model(
            model,
            "CPU",
            {
                _HINT: PRECISION_NAMES[precision],
                # A stream has one thread, as a run of ONNX Runtime has with fan_out.
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                # Replicas share cores, and each would pin its threads to the same ones.
                "ENABLE_CPU_PINNING": False,
            },
        )
        taken = self._compiled.get_property(_HINT).get_type_name()
        if taken != PRECISION_NAMES[precision]:
            # A hint is no order: what a processor does not have, OpenVINO replaces without a word.
            raise ValueError(f"OpenVINO computes in {taken} here if it is asked for {precision}")
        self.input_shape: list[Any] = list(self._compiled.inputs[0].shape)
        self._idle = deque(self._compiled.create_infer_request() for _ in range(threads))

    def run(self, images: Tensor) -> Tensor:
        """Return the first channel of the first output, float32 [N, S, S]. See ``Network``."""
        try:
            request = self._idle.pop()
        except IndexError:
            # An interactive image may overlap the images of all threads.
            request = self._compiled.create_infer_request()
        try:
            request.infer({0: images}, share_inputs=True)
            # A copy, since the next image writes to the same memory.
            answers: Tensor = request.get_output_tensor(0).data[:, 0].astype("float32")
        finally:
            self._idle.append(request)
        return answers

    def convolution_kernels(self) -> list[str]:
        """Return the name of the kernel of each convolution, as OpenVINO reports it."""
        found = []
        for operation in self._compiled.get_runtime_model().get_ordered_ops():
            facts = operation.get_rt_info()
            if "layerType" in facts and _text(facts["layerType"]) in _CONVOLUTIONS:
                found.append(_text(facts["primitiveType"]))
        return found


def _text(value: Any) -> str:
    # OpenVINO wraps the values of these facts.
    return str(value.astype(str) if hasattr(value, "astype") else value)
