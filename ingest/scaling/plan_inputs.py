"""What ``foreedge plan`` plans with: measured seconds (a profile) and prices (a table).

Both come with the package, dated; what in them is assumed and not measured says so.
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
"""Share of a node that Ray, the operating system and the HTTP proxy take; an assumption."""

_SQS_REQUESTS = 0.6
_GETS = 3


class ControlPlane(Section):
    """Limits that were measured, each of one process."""

    ingest_per_s: Seconds
    """Messages a second of one ingest actor."""
    handle_calls_per_s: Seconds
    """Calls a second between two deployments, from one replica."""


class Profile(Section):
    """Seconds of one thread for an image, as measured on a machine."""

    measured_on: NonEmpty
    """Date."""
    machine: NonEmpty
    commands: tuple[str, ...]
    """That measure it again."""
    images: NonEmpty
    """What was measured with."""
    image_pixels: Positive
    segment_s: dict[str, Seconds] = Field(min_length=1)
    """By model. Names that end in ``-shaped`` are graphs of that shape with random weights."""
    pixels_s: Seconds
    """Decode, resize, compose and encode."""
    overhead_s: float = Field(ge=0)
    """CPU seconds that the application adds to those."""
    control_plane: ControlPlane
    replica_start_s: Seconds

    def segment(self, model: str) -> float:
        """Return a model's seconds.

        Raises:
            InvalidConfig: It was not measured.
        """
        for name in (model, f"{model}-shaped"):
            if name in self.segment_s:
                return self.segment_s[name]
        raise InvalidConfig(
            f"the profile has no time for model {model!r}; it has {', '.join(self.segment_s)}"
        )


class Family(Section):
    """A family of instances."""

    arch: NonEmpty
    processor: NonEmpty
    per_vcpu_hour: Seconds
    spot_fraction: float = Field(gt=0, le=1)
    time_factor: Seconds
    sizes: dict[str, Positive]


class Requests(Section):
    """Prices of one request."""

    s3_put: float
    s3_get: float
    sqs: float

    @property
    def per_image(self) -> float:
        """US dollars, for the requests of one image."""
        return self.s3_put + _GETS * self.s3_get + _SQS_REQUESTS * self.sqs


class Prices(Section):
    """The table of prices."""

    as_of: NonEmpty
    region: NonEmpty
    families: dict[str, Family]
    requests: Requests


@dataclass(frozen=True, slots=True)
class Instance:
    """A type of node."""

    name: str
    vcpus: int
    family: Family

    @property
    def on_demand_per_hour(self) -> float:
        """US dollars."""
        return self.vcpus * self.family.per_vcpu_hour

    @property
    def usable_cpus(self) -> float:
        """What is left for replicas."""
        return self.vcpus * (1 - NODE_RESERVE)


def read_profile(path: Path | None) -> Profile:
    """Return a profile from a file, or the one that the package brings.

    Raises:
        InvalidConfig: The file cannot be read, or is none.
    """
    try:
        text = _packaged("profile.json") if path is None else path.read_text("utf-8")
        return Profile.model_validate(json.loads(text))
    except (OSError, ValueError) as error:
        why = describe_validation_error(error) if isinstance(error, ValidationError) else str(error)
        raise InvalidConfig(f"--profile {path}: {why}") from error


def read_prices() -> Prices:
    """Return the table of prices."""
    return Prices.model_validate(yaml.safe_load(_packaged("prices.yaml")))


def find_instance(name: str, prices: Prices) -> Instance:
    """Return an instance type.

    Raises:
        InvalidConfig: The table has none of that name.
    """
    family_name, _, size = name.strip().lower().partition(".")
    family = prices.families.get(family_name)
    if family is None:
        known = ", ".join(f"{each}.…" for each in prices.families)
        raise InvalidConfig(f"instance {name!r} is not in the table of prices, which has {known}")
    if size not in family.sizes:
        sizes = ", ".join(f"{family_name}.{each}" for each in family.sizes)
        raise InvalidConfig(f"instance {name!r} is none of {sizes}")
    return Instance(f"{family_name}.{size}", family.sizes[size], family)


def _packaged(name: str) -> str:
    return (resources.files("ingest.scaling") / "data" / name).read_text("utf-8")
