"""AppConfig: all settings, and the rules that concern several sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serve_app.config.deployments import (
    ImageLimits,
    PipelineConfig,
    ScalingConfig,
    SegmenterConfig,
)
from serve_app.config.http_endpoint import HttpConfig
from serve_app.config.section import NonEmpty
from serve_app.config.services import AwsConfig, LedgerConfig, QueueConfig, StorageConfig
from serve_app.contracts.base import describe_validation_error
from serve_app.errors import InvalidConfig


class AppConfig(BaseSettings):
    """All settings of the application."""

    model_config = SettingsConfigDict(
        env_prefix="FOREEDGE_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        nested_model_default_partial_update=True,
    )

    models: Annotated[tuple[NonEmpty, ...], Field(min_length=1)] = ("u2netp", "folio")
    """Models to serve, in order of preference. Each gets a Segmenter deployment of its own.
    ``folio`` is bundled. The weights of all others must be on the machine
    (``foreedge models fetch``)."""
    model_files: dict[str, Path] = {}
    """ONNX files by model name, for models that follow u2net's contract. The name of a known model
    replaces that model's file with another one of the same input."""
    u2net_home: Path | None = Field(
        default=None, validation_alias=AliasChoices("u2net_home", "U2NET_HOME")
    )
    """Folder of rembg's weights, also read from rembg's own variable ``U2NET_HOME``. None stands
    for rembg's default (``~/.rembg``, or ``~/.u2net`` of earlier versions)."""
    limits: ImageLimits = ImageLimits()
    """Limits of the images that are accepted."""
    aws: AwsConfig = AwsConfig()
    """Access to AWS."""
    storage: StorageConfig = StorageConfig()
    """Object store of the images and results."""
    pipeline: PipelineConfig = PipelineConfig()
    """Deployment that processes images."""
    segmenter: SegmenterConfig = SegmenterConfig()
    """Deployments that run the models."""
    http: HttpConfig = HttpConfig()
    """HTTP endpoint."""
    queue: QueueConfig | None = None
    """SQS queue to consume. None serves HTTP only."""
    ledger: LedgerConfig | None = None
    """Ledger of the results. Required with ``queue``."""
    autoscaling: ScalingConfig | None = None
    """Autoscaling of the deployments. None keeps the ``replicas`` of each."""

    @model_validator(mode="after")
    def _check_max_replicas(self) -> Self:
        least = max(self.pipeline.replicas, self.segmenter.replicas, self.http.replicas)
        if self.autoscaling is not None and self.autoscaling.max_replicas < least:
            raise ValueError(
                f"autoscaling.max_replicas must be at least {least}, the largest of the "
                "deployments' replicas"
            )
        return self

    @model_validator(mode="after")
    def _check_that_models_can_scale(self) -> Self:
        if self.autoscaling is not None and self.segmenter.placement == "pipeline":
            raise ValueError("autoscaling needs segmenter.placement deployment")
        return self

    @model_validator(mode="after")
    def _check_that_an_upload_fits(self) -> Self:
        if self.http.max_buffered_bytes < self.limits.max_bytes:
            raise ValueError(
                "http.max_buffered_bytes must be at least limits.max_bytes, or the largest images "
                "are never accepted"
            )
        return self

    @model_validator(mode="after")
    def _check_that_the_queue_has_a_ledger(self) -> Self:
        if self.queue is not None and self.ledger is None:
            raise ValueError("queue needs ledger.bucket, where results are recorded")
        return self

    @classmethod
    def load(cls, args: dict[str, Any] | None = None) -> Self:
        """Return the configuration of the arguments and the environment.

        Args:
            args: Nested settings. A dotted name (``queue.url``) stands for a nested one, which is
                how ``serve run`` passes settings.

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
