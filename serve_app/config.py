"""AppConfig and its parts: the one source of settings.

A value comes from, in order of precedence: the arguments of ``build`` (a Serve YAML's ``args``,
``serve run ... key=value``, the command line of ``foreedge``), the environment (``FOREEDGE_`` and
``__`` between the parts, as in ``FOREEDGE_QUEUE__URL``), the default. Nothing else in this
project reads the environment; boto3 finds credentials in its own way.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from serve_app.contracts.base import describe_validation_error
from serve_app.errors import InvalidConfig

Fraction = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
NonEmpty = Annotated[str, Field(min_length=1)]

_HOST = r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$"


def check_keys(keys: Iterable[str], where: str) -> tuple[str, ...]:
    """Return API keys, if they are some and can be sent in a header.

    Args:
        keys: The keys.
        where: They come from, for the message, which never has the keys themselves.

    Raises:
        ValueError: There is none, or one is empty or has characters that are not printable ASCII.
    """
    found = tuple(keys)
    if not found or not all(found):
        raise ValueError(f"{where} has no key, or an empty one: give keys, or leave it out")
    if not all(key.isascii() and key.isprintable() and " " not in key for key in found):
        raise ValueError(f"{where}: a key may have visible ASCII characters only")
    return found


def _one_or_several(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        # Digits alone are a number to JSON and to YAML.
        value = str(value)
    return [key.strip() for key in value.split(",")] if isinstance(value, str) else value


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ImageLimits(Section):
    """What is refused before a pixel is decoded."""

    max_bytes: Positive = 32 * 1024 * 1024
    max_pixels: Positive = 64_000_000
    max_side_px: Positive = 16_384


class AwsConfig(Section):
    """How S3 and SQS are reached."""

    region: NonEmpty = "us-east-1"
    endpoint_url: str | None = None
    """Of a local server that speaks both protocols; None is AWS itself."""
    max_attempts: Positive = 4
    """Of one call, by boto3's own retries (mode ``standard``)."""
    connect_timeout_s: Seconds = 5
    read_timeout_s: Seconds = 30
    """Must exceed the queue's long poll (20 s)."""


class StorageConfig(Section):
    """Where photographs are read and results are written."""

    allowed_buckets: tuple[str, ...] = ()
    """Buckets that a job may name; empty allows every bucket that the credentials reach."""
    local_root: Path | None = None
    """Folder whose subfolders are the buckets, instead of S3."""


class QueueConfig(Section):
    """The queue that SqsIngest serves, and how it does so."""

    url: NonEmpty
    consumers: Positive = 1
    """Replicas of SqsIngest; at most one on each node."""
    max_in_flight: Positive = 64
    """Jobs that one consumer has given to the pipeline. More than the replicas work on at the
    moment, or else their autoscaler never sees the demand."""
    visibility_timeout_s: Annotated[int, Field(ge=3, le=43_200)] = 120
    long_poll_s: Annotated[int, Field(ge=0, le=20)] = 20
    job_deadline_s: Seconds = 600
    """From receipt; past it the job counts as a transient failure."""
    retry_base_s: Seconds = 2
    """First back-off of a transient failure; it doubles with each receive."""
    retry_max_s: Seconds = 300
    default_max_receives: Positive = 5
    """Receives after which a transient failure is final, where the queue has no redrive policy."""
    stop_grace_s: Seconds = 20
    """Time that jobs in flight have to end after a stop was asked for."""
    output_bucket: str | None = None
    """For messages that do not say where their result goes (S3 event notifications)."""
    output_prefix: str = "cutouts/"
    recipe: str = "cutout"
    """Preset of messages that name none."""


class LedgerConfig(Section):
    """Where results of runs are recorded."""

    bucket: NonEmpty
    prefix: str = "_foreedge/"
    part_records: Positive = 1_000
    part_interval_s: Seconds = 2


class PipelineConfig(Section):
    """The deployment that takes one image from start to end."""

    replicas: Positive = 1
    num_cpus: Annotated[float, Field(ge=0)] = 0.5
    threads: Positive = 2
    """Images whose pixels are worked on at the same time."""
    max_decoded_pixels: Positive = 64_000_000
    """Pixels of all images that one replica has decoded; bounds its memory, at up to 10 bytes a
    pixel. A larger image goes alone."""
    max_ongoing: Positive = 256
    """Images that one replica takes from Serve, most of which wait in it. More than arrive: Serve
    asks a full replica again after pauses in which it idles (docs/decisions/0009)."""
    matting_threads: Positive = 1
    """Images that are matted at the same time; each takes up to 2 GB at the default cap."""
    matting_max_pixels: Positive = 8_000_000
    """Pixels that are matted at full size; see ``imaging.matting.matte``."""
    preload_matting: bool = False
    """Load matting when the replica starts, instead of with the first image that asks for it.
    Where the queue's preset asks for matting, it is loaded anyway."""


class SegmenterConfig(Section):
    """What owns the ONNX Runtime sessions; one for each model."""

    placement: Literal["deployment", "pipeline"] = "deployment"
    """``deployment``: a deployment for each model, with replicas of its own. ``pipeline``: in every
    CutoutPipeline replica, whose CPUs must do for both; nothing crosses processes then, and
    ``replicas``, ``num_cpus`` and ``max_ongoing`` do not count (docs/decisions/0011)."""
    replicas: Positive = 1
    num_cpus: Annotated[float, Field(ge=0)] = 1
    threads: Positive = 2
    """Images inferred at the same time by ``fan_out``, each on one thread."""
    execution: Literal["fan_out", "stack"] = "fan_out"
    """``fan_out``: every thread takes the next image that waits (CPU). ``stack``: one run of the
    graph takes all that wait, up to ``max_batch_size`` (GPU); needs a dynamic batch axis."""
    max_batch_size: Positive = 8
    max_ongoing: Positive = 256
    """Images that one replica takes from Serve; more than the pipelines send, as there."""
    timeout_s: Seconds = 120
    """Of one image, its wait for a batch included."""
    bfloat16: bool = False
    """Arm only: bfloat16 matrix products (mlas.enable_gemm_fastmath_arm64_bfloat16)."""

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        if self.max_ongoing < self.max_batch_size:
            raise ValueError("max_ongoing must be at least max_batch_size, or no batch fills")
        return self


class HttpConfig(Section):
    """The HTTP endpoint."""

    replicas: Positive = 1
    num_cpus: Annotated[float, Field(ge=0)] = 0.1
    max_concurrent: Positive = 64
    """Images that one replica has given to the pipeline and not yet answered; past it, 503 at
    once."""
    max_uploads: Positive = 256
    """Requests whose body one replica is reading; past it, 503 at once. Apart from
    ``max_concurrent``, so that clients that send slowly keep no other client from being served."""
    max_buffered_bytes: Positive = 256 * 1024 * 1024
    """Of all images that one replica holds; past it, 503."""
    request_timeout_s: Seconds = 60
    """From the first byte of a request to its answer. A client may ask for less
    (``x-request-timeout-seconds``), not for more."""
    api_keys: Annotated[tuple[SecretStr, ...] | None, BeforeValidator(_one_or_several)] = None
    """Keys that open the endpoint, one or several; in the environment also with commas between.
    Without this and the next two, it is open to everybody who reaches its port."""
    api_keys_file: Path | None = None
    """File with a key in each line; lines that begin with ``#`` do not count."""
    api_keys_secret: NonEmpty | None = None
    """Name or ARN of a secret in AWS Secrets Manager: lines as in the file, or a JSON list or
    object whose values are the keys."""
    api_keys_refresh_s: Seconds = 60
    """Age at which keys of the file and of the secret are read again."""

    fetch_hosts: tuple[Annotated[str, Field(pattern=_HOST)], ...] = ()
    """Hosts that ``GET /api/remove?url=`` may fetch images from: names in lower case, ``*.`` for
    all names below one, ``:PORT`` for a port that is not the usual one. Empty: nothing is
    fetched."""
    fetch_networks: tuple[IPvAnyNetwork, ...] = ()
    """Networks that these hosts may be in although they are private, such as ``10.1.0.0/16``."""
    fetch_timeout_s: Seconds = 10
    """Of one image, its redirects included."""

    @model_validator(mode="after")
    def _keys_are_keys(self) -> Self:
        if self.api_keys is not None:
            check_keys((key.get_secret_value() for key in self.api_keys), "api_keys")
        if self.api_keys_file is not None and not self.api_keys_file.name:
            raise ValueError("api_keys_file: is empty")
        return self

    @property
    def authenticates(self) -> bool:
        """Whether requests need a key."""
        return any(
            source is not None
            for source in (self.api_keys, self.api_keys_file, self.api_keys_secret)
        )


class ScalingConfig(Section):
    """How replicas of Segmenter and CutoutPipeline follow what there is to do.

    ``replicas`` of each deployment is then its minimum, and what it starts with.
    """

    max_replicas: Positive = 8
    """Of each deployment."""
    drain_target_s: Seconds = 600
    """In which a backlog is to be worked through, the delay of scaling up included."""
    answer_target_s: Seconds = 10
    """In which the requests that are in work are to be answered; HTTP has no backlog."""
    upscale_delay_s: NotNegative = 30
    downscale_delay_s: NotNegative = 600
    look_back_s: Annotated[float, Field(gt=10)] = 30
    """Over which ongoing requests are averaged; Ray sends them every 10 s."""
    read_period_s: Seconds = 5
    """Between two readings of the queue's length."""
    away_after_s: Seconds = 300
    """Once the queue could not be read for that long, its last length counts no longer."""
    pixels_s: Seconds = 0.15
    """One thread's time for an image in CutoutPipeline, until its replicas have measured it."""
    segment_s: Seconds = 0.25
    """One thread's time for an image in Segmenter, until its replicas have measured it."""

    @model_validator(mode="after")
    def _time_is_left(self) -> Self:
        if self.drain_target_s < 2 * self.upscale_delay_s:
            raise ValueError("drain_target_s must be at least twice upscale_delay_s")
        return self


class AppConfig(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="FOREEDGE_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        nested_model_default_partial_update=True,
    )

    models: Annotated[tuple[NonEmpty, ...], Field(min_length=1)] = ("folio",)
    """Models to serve, in order of preference; each gets a Segmenter of its own."""
    model_files: dict[str, Path] = {}
    """Other models by name: ONNX files that obey u2net's contract. Under the name of a model that
    is known: another file for it, of the same input."""
    u2net_home: Path | None = Field(
        default=None, validation_alias=AliasChoices("u2net_home", "U2NET_HOME")
    )
    """Folder of rembg's weights, under the name of rembg's own variable; None is rembg's default
    (``~/.rembg``, and ``~/.u2net`` of earlier versions)."""
    limits: ImageLimits = ImageLimits()
    aws: AwsConfig = AwsConfig()
    storage: StorageConfig = StorageConfig()
    pipeline: PipelineConfig = PipelineConfig()
    segmenter: SegmenterConfig = SegmenterConfig()
    http: HttpConfig = HttpConfig()
    queue: QueueConfig | None = None
    """None: no ingest, HTTP only."""
    ledger: LedgerConfig | None = None
    autoscaling: ScalingConfig | None = None
    """None: every deployment keeps its ``replicas``."""

    @model_validator(mode="after")
    def _replicas_have_room(self) -> Self:
        least = max(self.pipeline.replicas, self.segmenter.replicas, self.http.replicas)
        if self.autoscaling is not None and self.autoscaling.max_replicas < least:
            raise ValueError(f"autoscaling.max_replicas must be at least {least}, the replicas set")
        return self

    @model_validator(mode="after")
    def _what_scales_is_a_deployment(self) -> Self:
        if self.autoscaling is not None and self.segmenter.placement == "pipeline":
            raise ValueError("autoscaling needs segmenter.placement deployment")
        return self

    @model_validator(mode="after")
    def _an_upload_fits(self) -> Self:
        if self.http.max_buffered_bytes < self.limits.max_bytes:
            raise ValueError(
                "http.max_buffered_bytes must be at least limits.max_bytes, or the largest images "
                "are refused for ever"
            )
        return self

    @model_validator(mode="after")
    def _ingest_has_a_ledger(self) -> Self:
        if self.queue is not None and self.ledger is None:
            raise ValueError("queue needs ledger.bucket, where results are recorded")
        return self

    @classmethod
    def load(cls, args: dict[str, Any] | None = None) -> Self:
        """Make the configuration from arguments and the environment.

        Args:
            args: Nested settings; a dotted name (``queue.url``) stands for a nested one, which is
                how ``serve run`` passes them.

        Raises:
            InvalidConfig: A setting is unknown, missing, empty or has an invalid value.
        """
        nested: dict[str, Any] = {}
        for name, value in (args or {}).items():
            *parents, leaf = name.split(".")
            section = nested
            for parent in parents:
                section = section.setdefault(parent, {})
            section[leaf] = value
        if isinstance(models := nested.get("models"), str):
            nested["models"] = [name.strip() for name in models.split(",")]
        try:
            return cls(**nested)
        except ValidationError as error:
            raise InvalidConfig(f"configuration: {describe_validation_error(error)}") from error
