"""Settings of the deployments that process images, and of how they scale."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from serve_app.config.section import NotNegative, Positive, Seconds, Section
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.precision import Accuracy, EngineSetting, Precision

_FORMER_BYTES_PER_PIXEL = 10
"""What ``pipeline.max_decoded_pixels`` promised to take at most."""


class ImageLimits(Section):
    """Limits over which an image is rejected before any pixel is decoded."""

    max_bytes: Positive = 32 * 1024 * 1024
    """Largest size of an image file, in bytes."""
    max_pixels: Positive = 64_000_000
    """Largest number of pixels, width times height."""
    max_side_px: Positive = 16_384
    """Longest width or height, in pixels."""


class PipelineConfig(Section):
    """CutoutPipeline, the deployment that processes an image from start to end."""

    former_names = frozenset({"max_decoded_pixels"})

    replicas: Positive = 1
    """Number of replicas, or their minimum number with ``autoscaling``."""
    num_cpus: NotNegative = 0.5
    """CPU cores that Ray reserves for each replica."""
    threads: Positive = 2
    """Number of images whose pixels one replica processes at the same time."""
    max_decoded_bytes: Positive = 640_000_000
    """Memory, in bytes, of the images that one replica processes at the same time. Each is charged
    by its format, its colours and its recipe (docs/operations/memory.md). An image that needs more
    is processed alone. An eighth is kept for requests over HTTP. The former name
    ``max_decoded_pixels`` is still read, and stands for ten bytes per pixel."""
    max_ongoing: Positive = 256
    """Number of images of the queue that one replica accepts from Serve, most of which wait in the
    replica. It must exceed the number that arrives. Otherwise Serve pauses before it tries a full
    replica again, and the replica idles meanwhile (docs/decisions/0009). Requests over HTTP are
    accepted beyond it."""
    matting_threads: Positive = 1
    """Number of images that one replica mattes at the same time. Each takes up to 2 GB at the
    default ``matting_max_pixels``."""
    matting_max_pixels: Positive = 8_000_000
    """Largest number of pixels that are matted at full size. Of a larger image only the part around
    the uncertain edges is matted, at a reduced size if it is still too large."""
    preload_matting: bool = False
    """Whether matting is loaded when a replica starts, instead of with the first image that needs
    it. It is loaded at the start in any case if the preset of ``queue.recipe`` uses matting."""

    @model_validator(mode="before")
    @classmethod
    def _read_former_budget(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "max_decoded_pixels" not in values:
            return values
        values = dict(values)
        try:
            pixels = TypeAdapter(Positive).validate_python(values.pop("max_decoded_pixels"))
        except ValidationError as error:
            reason = describe_validation_error(error)
            raise ValueError(f"max_decoded_pixels: {reason}") from error
        return {**values, "max_decoded_bytes": _FORMER_BYTES_PER_PIXEL * pixels}


class SegmenterConfig(Section):
    """Segmenter, which owns one loaded model."""

    former_names = frozenset({"bfloat16"})

    placement: Literal["deployment", "pipeline"] = "deployment"
    """Process in which the models run. ``deployment``: each model is a deployment with its own
    replicas. ``pipeline``: every CutoutPipeline replica runs the models itself, so that no pixel
    crosses processes. Its CPUs must suffice for both, and ``replicas``, ``num_cpus`` and
    ``max_ongoing`` of this section have no effect (docs/decisions/0011)."""
    replicas: Positive = 1
    """Number of replicas of each model, or their minimum number with ``autoscaling``."""
    num_cpus: NotNegative = 1
    """CPU cores that Ray reserves for each replica."""
    threads: Positive = 2
    """Number of images that ``fan_out`` runs at the same time, each on one thread. With ``stack``,
    the number of threads of the one run."""
    execution: Literal["fan_out", "stack"] = "fan_out"
    """How a replica runs the images that wait. ``fan_out``, for the most images/s: each thread runs
    the next image. ``stack``, for the shortest time of one image while cores are idle: all threads
    share one run of the graph, which takes up to ``max_batch_size`` images if its batch axis is
    dynamic."""
    max_batch_size: Positive = 8
    """Maximum number of images in one run of the graph with ``stack``."""
    max_ongoing: Positive = 256
    """Number of images of the queue that one replica accepts from Serve. It must exceed the number
    that the pipelines send, for the same reason as ``pipeline.max_ongoing``."""
    timeout_s: Seconds = 120
    """Time, in seconds, within which the mask of one image must be ready, including its wait for a
    batch."""
    rewrite_graph: bool = True
    """Whether a model's graph is rewritten for CPUs when it is loaded: the same masks within one
    grey level, for less time. The replica checks that, unless it was checked before."""
    engine: EngineSetting = "onnxruntime"
    """Library that runs the models. ``openvino`` needs the extra of that name, and ``fan_out``.
    ``auto`` takes the fastest engine and precision that the processor runs well and that have
    passed the gate for ``accuracy`` (docs/operations/engines.md). ``/v1/models`` says which and
    why."""
    precision: Precision = "float32"
    """Precision of the models' sums. ``bfloat16`` and ``float16`` need ``openvino`` and a gate that
    was passed on such a processor (``foreedge models gate``). ``int8`` needs ``onnxruntime`` and a
    file of ``foreedge models quantize`` that has passed the gate. Otherwise float32 serves, and
    ``/readyz`` says why. ``auto`` chooses the precision too."""
    accuracy: Accuracy | None = None
    """How near the masks must be to rembg's in float32 on the images of the gate. ``exact``: 99.9 %
    of the pixels within 2 grey levels. ``close`` and ``fast``: see docs/operations/engines.md. None
    stands for ``exact``, and for ``fast`` if ``precision`` names another one than float32."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_former_bfloat16(cls, values: Any) -> Any:
        if isinstance(values, dict) and "bfloat16" in values:
            raise ValueError(
                "bfloat16 is no longer a setting: ONNX Runtime used it for matrix products only, "
                "and never for convolutions. Remove it, or set engine to openvino and precision to "
                "bfloat16"
            )
        return values

    @model_validator(mode="after")
    def _check_that_the_engine_can(self) -> Self:
        if self.engine == "auto" and self.precision != "float32":
            raise ValueError("engine auto chooses the precision. Remove precision")
        if self.engine == "onnxruntime" and self.precision not in {"float32", "int8"}:
            raise ValueError(
                f"precision {self.precision} needs engine openvino. onnxruntime has float32 and "
                "int8"
            )
        if self.engine == "openvino" and self.precision == "int8":
            raise ValueError("precision int8 needs engine onnxruntime")
        if self.execution == "stack" and self.engine != "onnxruntime":
            raise ValueError(f"engine {self.engine} needs execution fan_out: it runs images singly")
        if self.execution == "stack" and self.precision == "int8":
            raise ValueError("precision int8 needs execution fan_out: its graph takes one image")
        return self

    @property
    def required_accuracy(self) -> Accuracy:
        """The accuracy that an engine and precision must have reached."""
        return self.accuracy or ("exact" if self.precision == "float32" else "fast")

    @model_validator(mode="after")
    def _check_that_a_batch_can_fill(self) -> Self:
        if self.max_ongoing < self.max_batch_size:
            raise ValueError("max_ongoing must be at least max_batch_size, or no batch fills")
        return self


class ScalingConfig(Section):
    """How the replicas of Segmenter and CutoutPipeline follow the demand.

    Each deployment starts with its ``replicas``, which is then its minimum.
    """

    max_replicas: Positive = 8
    """Maximum number of replicas of each deployment."""
    drain_target_s: Seconds = 600
    """Target time, in seconds, to work through a backlog, including the delay of scaling up."""
    answer_target_s: Seconds = 10
    """Target time, in seconds, to answer the requests in progress. (HTTP requests have no
    backlog.)"""
    upscale_delay_s: NotNegative = 30
    """Time, in seconds, for which more replicas must be needed before any is added."""
    downscale_delay_s: NotNegative = 600
    """Time, in seconds, for which fewer replicas must be needed before any is removed."""
    look_back_s: Annotated[float, Field(gt=10)] = 30
    """Window, in seconds, over which ongoing requests are averaged. Ray reports them every 10 s."""
    read_period_s: Seconds = 5
    """Time, in seconds, between two readings of the queue's length."""
    away_after_s: Seconds = 300
    """Time, in seconds, after which the last known length of a queue that cannot be read no longer
    counts."""
    pixels_s: Seconds = 0.15
    """Estimated time, in seconds, that one thread of CutoutPipeline needs for an image. It counts
    until the replicas have measured theirs."""
    segment_s: Seconds = 0.25
    """Estimated time, in seconds, that one thread of Segmenter needs for an image. It counts until
    the replicas have measured theirs."""

    @model_validator(mode="after")
    def _check_that_time_is_left_to_drain(self) -> Self:
        if self.drain_target_s < 2 * self.upscale_delay_s:
            raise ValueError("drain_target_s must be at least twice upscale_delay_s")
        return self
