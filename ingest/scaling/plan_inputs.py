"""The inputs of ``foreedge plan``: measured times (a profile) and a table of prices.

Both are part of the package and dated. Values that are assumed instead of measured are marked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from serve_app.config import NonEmpty, Positive, Seconds, Section
from serve_app.contracts.base import describe_validation_error
from serve_app.errors import InvalidConfig

NODE_RESERVE = 0.05
"""Assumed share of a node that Ray, the operating system and the HTTP proxy take."""

_SQS_REQUESTS = 0.6
_GETS = 3


class ControlPlane(Section):
    """Measured limits of the processes that dispatch the images."""

    ingest_per_s: Seconds
    """Messages per second of one ingest actor."""
    handle_calls_per_s: Seconds
    """Calls per second from one replica to another deployment."""


class Profile(Section):
    """Seconds that one thread needs per image, as measured on one machine."""

    measured_on: NonEmpty
    """Date of the measurement."""
    machine: NonEmpty
    commands: tuple[str, ...]
    """Commands that repeat the measurement."""
    images: NonEmpty
    """Description of the measured images."""
    image_pixels: Positive
    segment_s: dict[str, Seconds] = Field(min_length=1)
    """Seconds in the model, by name. ``-shaped`` marks graphs of that shape with random weights."""
    pixels_s: Seconds
    """Seconds to decode, resize, compose and encode."""
    overhead_s: float = Field(ge=0)
    """CPU seconds that the application adds per image."""
    control_plane: ControlPlane
    replica_start_s: Seconds

    def segment(self, model: str) -> float:
        """Return the seconds per image of a model.

        Raises:
            InvalidConfig: The model was not measured.
        """
        for name in (model, f"{model}-shaped"):
            if name in self.segment_s:
                return self.segment_s[name]
        raise InvalidConfig(
            f"--model: {model!r} is not in the profile, which has {', '.join(self.segment_s)}"
        )


class Family(Section):
    """A family of EC2 instance types."""

    arch: NonEmpty
    processor: NonEmpty
    per_vcpu_hour: Seconds
    spot_fraction: float = Field(gt=0, le=1)
    time_factor: Seconds
    sizes: dict[str, Positive]


class Requests(Section):
    """Prices of single requests, in US dollars."""

    s3_put: float
    s3_get: float
    sqs: float

    @property
    def per_image(self) -> float:
        """US dollars for the requests of one image."""
        return self.s3_put + _GETS * self.s3_get + _SQS_REQUESTS * self.sqs


class Prices(Section):
    """The prices of one region at one date."""

    as_of: NonEmpty
    region: NonEmpty
    families: dict[str, Family]
    requests: Requests


@dataclass(frozen=True, slots=True)
class Instance:
    """An EC2 instance type."""

    name: str
    vcpus: int
    family: Family

    @property
    def on_demand_per_hour(self) -> float:
        """US dollars per hour."""
        return self.vcpus * self.family.per_vcpu_hour

    @property
    def usable_cpus(self) -> float:
        """CPUs that are left for replicas."""
        return self.vcpus * (1 - NODE_RESERVE)


def read_profile(path: Path | None) -> Profile:
    """Return the profile in a file, or the one in the package.

    Args:
        path: A JSON file. None: the profile in the package.

    Raises:
        InvalidConfig: The file cannot be read or is not a profile.
    """
    try:
        text = _packaged("profile.json") if path is None else path.read_text("utf-8")
        return Profile.model_validate(json.loads(text))
    except (OSError, ValueError) as error:
        if isinstance(error, ValidationError):
            reason = describe_validation_error(error)
        else:
            reason = getattr(error, "strerror", None) or str(error)
        raise InvalidConfig(f"--profile: cannot read {path}: {reason}") from error


def read_prices() -> Prices:
    """Return the prices in the package."""
    return Prices.model_validate(yaml.safe_load(_packaged("prices.yaml")))


def find_instance(name: str, prices: Prices) -> Instance:
    """Return the instance type of a name such as ``c8g.4xlarge``.

    Raises:
        InvalidConfig: The prices have no such type.
    """
    family_name, _, size = name.strip().lower().partition(".")
    family = prices.families.get(family_name)
    if family is None:
        known = ", ".join(f"{each}.…" for each in prices.families)
        raise InvalidConfig(f"--instance: there is no price for {name!r}, only for {known}")
    if size not in family.sizes:
        sizes = ", ".join(f"{family_name}.{each}" for each in family.sizes)
        raise InvalidConfig(f"--instance: {name!r} is not one of {sizes}")
    return Instance(f"{family_name}.{size}", family.sizes[size], family)


def _packaged(name: str) -> str:
    return (resources.files("ingest.scaling") / "data" / name).read_text("utf-8")
