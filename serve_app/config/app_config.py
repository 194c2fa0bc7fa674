"""AppConfig: all settings, and the rules that concern several sections."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from serve_app.config.catalog import CatalogConfig
from serve_app.config.deployments import (
    ImageLimits,
    PipelineConfig,
    ScalingConfig,
    SegmenterConfig,
)
from serve_app.config.http_endpoint import HttpConfig
from serve_app.config.names import PREFIX, describe_invalid_settings, find_unknown_variable
from serve_app.config.section import NonEmpty, WrittenAsText
from serve_app.config.services import AwsConfig, LedgerConfig, QueueConfig, StorageConfig
from serve_app.errors import InvalidConfig


class _Environment(EnvSettingsSource):
    """The settings in the environment, with errors that name the variable."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Return the value of a variable that holds JSON.

        Raises:
            InvalidConfig: It does not.
        """
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError as error:
            raise InvalidConfig(
                f"configuration: {field_name} in the environment ({PREFIX}…) is not valid JSON: "
                f"{error}"
            ) from error


class AppConfig(BaseSettings):
    """All settings of the application."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        nested_model_default_partial_update=True,
    )

    models: Annotated[tuple[NonEmpty, ...], NoDecode, WrittenAsText, Field(min_length=1)] = (
        "u2netp",
    )
    """Models to serve, in order of preference: the next one is asked if a mask fails the checks.
    Each gets a Segmenter deployment of its own. ``folio`` is bundled. The weights of all others
    must be on the machine (``foreedge models fetch``)."""
    models_on_request: Annotated[tuple[NonEmpty, ...], NoDecode, WrittenAsText] = ()
    """Models that are served too, and asked only for recipes that name them. ``foreedge serve`` and
    ``foreedge demo`` add ``folio`` if no models are configured."""
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
    catalog: CatalogConfig | None = None
    """Tables of a book collection, whose jobs may be on the queue. None refuses such jobs."""
    autoscaling: ScalingConfig | None = None
    """Autoscaling of the deployments. None keeps the ``replicas`` of each."""

    @field_validator("model_files")
    @classmethod
    def _check_that_names_fit_into_headers(cls, files: dict[str, Path]) -> dict[str, Path]:
        for name in files:
            if not (name and name.isascii() and name.isprintable()):
                raise ValueError(
                    f"{name!r} cannot name a model. Use printable ASCII characters, since "
                    "responses carry the name in a header."
                )
        return files

    @field_validator("models")
    @classmethod
    def _check_that_each_model_comes_once(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for index, name in enumerate(models) if name in models[:index]]
        if twice:
            raise ValueError(f"{', '.join(dict.fromkeys(twice))} is listed twice. Remove one.")
        return models

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

    @model_validator(mode="after")
    def _check_that_the_queue_is_in_the_region(self) -> Self:
        # A server in place of AWS has its own address, whatever its queues are called.
        if self.queue is None or self.aws.endpoint_url is not None:
            return self
        region = self.queue.region
        if region is not None and region != self.aws.region:
            raise ValueError(
                f"queue.url {self.queue.url} is in {region}, and aws.region is {self.aws.region}; "
                f"set aws.region to {region}"
            )
        return self

    @model_validator(mode="after")
    def _check_that_results_may_be_written(self) -> Self:
        allowed = self.storage.allowed_buckets
        bucket = None if self.queue is None else self.queue.output_bucket
        if bucket is not None and allowed and bucket not in allowed:
            raise ValueError(
                f"queue.output_bucket {bucket} is not one of storage.allowed_buckets; add it"
            )
        return self

    @model_validator(mode="after")
    def _check_what_the_catalog_needs(self) -> Self:
        if self.catalog is not None and self.queue is None:
            raise ValueError("catalog needs queue.url, from which its jobs come")
        if self.catalog is not None and self.storage.local_root is not None:
            raise ValueError("catalog needs S3; do not set storage.local_root")
        allowed = self.storage.allowed_buckets
        if self.catalog is not None and allowed and self.catalog.images_bucket not in allowed:
            raise ValueError(
                f"catalog.images_bucket {self.catalog.images_bucket} is not one of "
                "storage.allowed_buckets; add it"
            )
        return self

    @model_validator(mode="after")
    def _check_that_a_long_poll_can_end(self) -> Self:
        if self.queue is not None and self.aws.read_timeout_s <= self.queue.long_poll_s:
            raise ValueError(
                f"aws.read_timeout_s ({self.aws.read_timeout_s:g}) must exceed queue.long_poll_s "
                f"({self.queue.long_poll_s}), or every receive from an empty queue times out"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then the environment, and nothing else."""
        return init_settings, _Environment(settings_cls)

    @property
    def served_models(self) -> tuple[str, ...]:
        """All models that are served, each once: those of ``models``, then those on request."""
        return tuple(dict.fromkeys((*self.models, *self.models_on_request)))

    @property
    def chooses_models(self) -> bool:
        """Whether the models are configured, and not those of the default."""
        return not self.model_fields_set.isdisjoint({"models", "models_on_request"})

    @classmethod
    def load(cls, args: dict[str, Any] | None = None) -> Self:
        """Return the configuration of the arguments and the environment.

        Args:
            args: Nested settings. A dotted name (``queue.url``) stands for a nested one, which is
                how ``serve run`` passes settings.

        Raises:
            InvalidConfig: A setting is unknown, missing, empty or has an invalid value.
        """
        unknown = find_unknown_variable(cls, os.environ)
        if unknown is not None:
            raise InvalidConfig(f"configuration: {unknown}")
        try:
            return cls(**_nest(args or {}))
        except ValidationError as error:
            raise InvalidConfig(
                f"configuration: {describe_invalid_settings(error, cls)}"
            ) from error


def _nest(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with each dotted name replaced by nested ones.

    Raises:
        InvalidConfig: A name is not a text, or passes through a setting that is not a section.
    """
    nested: dict[str, Any] = {}
    for name, value in args.items():
        if not isinstance(name, str):
            raise InvalidConfig(f"configuration: the name {name!r} of a setting is not a text")
        *parents, leaf = name.split(".")
        section = nested
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            elif not isinstance(section[parent], dict):
                raise InvalidConfig(f"configuration: {name}: {parent} is not a section of settings")
            # A copy, since the arguments belong to the caller.
            section[parent] = dict(section[parent])
            section = section[parent]
        section[leaf] = value
    return nested
