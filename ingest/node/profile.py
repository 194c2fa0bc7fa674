"""The profile for ``foreedge plan`` that follows from the speeds of a node."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from ingest.node.pixels import HEIGHT, WIDTH
from ingest.node.speed import CaseSpeed
from ingest.scaling.plan_inputs import Profile
from serve_app.errors import InvalidConfig
from serve_app.models.engines.network import EXACT, Pair
from serve_app.models.engines.processor import Machine, kernel_features

COMMAND = "foreedge bench-node"

_NEEDS_RAY = ("overhead_s", "control_plane", "replica_start_s")
"""What only a running application shows."""


def describe_processors(cores: int, cpu: str, architecture: str) -> str:
    """Return the processors of a machine in words."""
    return f"{cores} vCPUs of {cpu} ({architecture})"


def profile_of(
    model: str,
    speeds: Sequence[CaseSpeed],
    pixels_s: float,
    processors: str,
    machine: Machine,
    base: Profile,
) -> Profile:
    """Return the profile of a node. What needs Ray is that of another profile, and says so.

    Args:
        model: Name of the model that was measured.
        speeds: Speeds of its pairs. Those on one thread count, and one of them is the default pair.
        pixels_s: CPU seconds of one image without the model.
        processors: The processors in words.
        machine: The machine that was measured.
        base: Profile that has the rest.

    Raises:
        InvalidConfig: The default pair was not measured on one thread.
    """
    seconds = {
        Pair(each.engine, each.precision): each.cpu_s_per_image
        for each in speeds
        if each.threads == 1
    }
    if EXACT not in seconds:
        raise InvalidConfig(
            f"{model} was not measured with {EXACT} on one thread, which every profile begins with."
        )
    return Profile(
        measured_on=date.today().isoformat(),
        machine=processors,
        architecture=machine.architecture,
        method="CPU seconds of whole processes on one thread.",
        commands=(f"{COMMAND} --model {model}",),
        images=f"JPEG of {WIDTH}x{HEIGHT} to PNG",
        image_pixels=WIDTH * HEIGHT,
        segment_s={model: seconds.pop(EXACT)},
        other_engines_s={str(pair): {model: value} for pair, value in seconds.items()},
        other_engines_kernels={str(pair): kernel_features(pair, machine) for pair in seconds},
        pixels_s=round(pixels_s, 4),
        **application_of_profile(base),
    )


def application_of_profile(base: Profile) -> dict[str, Any]:
    """Return the fields that only a running application shows, and that they are of a profile."""
    origin = f"taken from a profile of {base.machine}, {base.measured_on}"
    return {
        **{name: getattr(base, name) for name in _NEEDS_RAY},
        "from_elsewhere": dict.fromkeys(_NEEDS_RAY, origin),
    }
