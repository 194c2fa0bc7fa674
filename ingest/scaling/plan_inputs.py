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
from serve_app.models.engines.network import EVERY_PAIR, EXACT, Pair
from serve_app.models.engines.processor import Machine, kernel_features, why_not_runnable

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
    """Number and name of the processors."""
    architecture: str = ""
    """Architecture of that machine, such as ``x86_64``. Empty if the profile does not say it."""
    method: str = ""
    """How the seconds were taken, and what else the machine did."""
    commands: tuple[str, ...]
    """Commands that repeat the measurement."""
    images: NonEmpty
    """Description of the measured images."""
    image_pixels: Positive
    segment_s: dict[str, Seconds] = Field(min_length=1)
    """Seconds in the model with ONNX Runtime in float32, by name. ``-shaped`` marks graphs of that
    shape with random weights."""
    other_engines_s: dict[str, dict[str, Seconds]] = Field(default_factory=dict)
    """The same with other engines and precisions, such as ``openvino bfloat16``."""
    other_engines_kernels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Features of the processor that chose the kernels of each of these, such as ``amx_bf16``."""
    pixels_s: Seconds
    """Seconds to decode, resize, compose and encode."""
    overhead_s: float = Field(ge=0)
    """CPU seconds that the application adds per image."""
    control_plane: ControlPlane
    replica_start_s: Seconds
    """Seconds until a new replica takes images."""
    from_elsewhere: dict[str, str] = Field(default_factory=dict)
    """Origin of each of these fields that was not measured together with the others."""

    def pairs(self) -> list[Pair]:
        """Return the engines and precisions that were measured.

        Raises:
            InvalidConfig: The profile names one that does not exist.
        """
        return [EXACT, *(parse_pair(name, "--profile") for name in self.other_engines_s)]

    def names(self, pair: Pair) -> dict[str, float]:
        """Return the seconds per image of each model that was measured with a pair.

        Raises:
            InvalidConfig: None was.
        """
        found = self.segment_s if pair == EXACT else self.other_engines_s.get(str(pair))
        if found is None:
            measured = ", ".join(map(str, self.pairs()))
            raise InvalidConfig(
                f"--engine: {pair} is not in the profile, which has {measured}. Measure it on the "
                "instance: foreedge bench-node, then --profile"
            )
        return found

    def kernels(self, pair: Pair) -> tuple[str, ...] | None:
        """Return the features that chose the kernels of a pair, or None if nothing says them."""
        return self.other_engines_kernels.get(str(pair))

    def segment(self, model: str, pair: Pair = EXACT) -> float:
        """Return the seconds per image of a model.

        Raises:
            InvalidConfig: The model was not measured, or not with this pair.
        """
        names = self.names(pair)
        for name in (model, f"{model}-shaped"):
            if name in names:
                return names[name]
        raise InvalidConfig(
            f"--model: {model!r} is not in the profile, which has {', '.join(names)} for {pair}"
        )


class Family(Section):
    """A family of EC2 instance types."""

    arch: NonEmpty
    processor: NonEmpty
    per_vcpu_hour: Seconds
    spot_fraction: float = Field(gt=0, le=1)
    time_factor: Seconds
    features: frozenset[str]
    """Features of its processors that decide which engines they run well."""
    vendor: str = ""
    """Maker of x86-64 processors, as they name themselves in ``/proc/cpuinfo``."""
    sizes: dict[str, Positive]

    def why_not(self, pair: Pair, profile: Profile) -> str | None:
        """Return why nothing is known of an engine and precision on these instances.

        Args:
            pair: Engine and precision.
            profile: Profile that has their seconds, or an error for who asks for them.

        Returns:
            None if the instances run them, with the kernels that were measured.
        """
        # OpenVINO has wheels for both architectures, which the plan takes to be installed.
        machine = Machine(self.arch, self.features, openvino="a release", vendor=self.vendor)
        reason = why_not_runnable(pair, machine)
        if reason is not None or not pair.changes_numbers or pair not in profile.pairs():
            return reason
        measured, here = profile.kernels(pair), kernel_features(pair, machine)
        advice = "Measure it on the instance: foreedge bench-node, then --profile"
        if measured is None:
            return f"the profile does not say which kernels its seconds are of. {advice}"
        if measured != here:
            return (
                f"the seconds of the profile are of the kernels for {', '.join(measured)}, and "
                f"this processor has those for {', '.join(here)}. {advice}"
            )
        return None


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


def parse_pair(text: str, option: str) -> Pair:
    """Return the pair that a text such as ``openvino bfloat16`` names.

    Args:
        text: Engine and precision.
        option: Option of the command line that has it, for the error.

    Raises:
        InvalidConfig: There is no such engine or precision.
    """
    for pair in EVERY_PAIR:
        if text == str(pair):
            return pair
    raise InvalidConfig(
        f"{option}: {text!r} is no engine with a precision. There are "
        f"{', '.join(map(str, EVERY_PAIR))}"
    )


def read_profile(path: Path | None) -> Profile:
    """Return the profile in a file, or the one in the package.

    Args:
        path: A JSON file: a profile, or a report of ``foreedge bench-node``, which has one. None:
            the profile in the package.

    Raises:
        InvalidConfig: The file cannot be read or is not a profile.
    """
    try:
        found = json.loads(_packaged("profile.json") if path is None else path.read_text("utf-8"))
        if isinstance(found, dict) and "profile" in found:
            found = found["profile"]
            if found is None:
                raise ValueError("its processor was emulated, so that no time in it means anything")
        return Profile.model_validate(found)
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
