"""Peak memory of one image in a pipeline, each in a fresh process.

A process that has loaded everything and held no image forks a child for each case. The child
processes a tiny image of the same kind, so that codecs and tables are loaded. It resets the peak of
its resident memory, and processes the image in the threads of the real pipeline. Only the model is
a stand-in. The images are noise, whose files are the largest.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from loadtests.harness.hostile_files import chunk
from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo
from serve_app.contracts.priority import Priority
from serve_app.contracts.recipe import Recipe
from serve_app.imaging.decode import read_header
from serve_app.imaging.footprint import bytes_needed
from serve_app.imaging.icc import SRGB_CHROMATICITIES, build_profile
from serve_app.imaging.pixels import Pixels
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.serving.malloc import keep_freed_memory
from serve_app.storage import open_store

_MODEL_SIDE_PX = 320
_TINY = (48, 36)
_ORIENTATION = 0x0112
_TURNED_RIGHT = 6


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of image and one recipe."""

    kind: str
    """Name of the kind, one of ``KINDS``."""
    recipe: dict[str, Any]
    """Fields of the recipe that differ from the default."""
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Peak:
    """Memory of one case, in bytes."""

    case: Case
    measured: int
    """Growth of the process's resident memory, with the file of the image."""
    charged: int
    """What the pipeline charges for it."""
    file_bytes: int
    """Size of the image file."""


def measure_peaks(cases: Sequence[Case], folder: Path) -> list[Peak]:
    """Return the peak memory of each case.

    Args:
        cases: Cases to measure.
        folder: Folder for the image files.
    """
    for case in cases:
        for path, size in _files(case, folder).items():
            if not path.exists():
                path.write_bytes(KINDS[case.kind](*size))
    found = subprocess.run(
        [sys.executable, "-m", "loadtests.harness.peak_memory", str(folder)],
        input=json.dumps([asdict(case) for case in cases]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    return [
        Peak(case, *json.loads(line)) for case, line in zip(cases, found.splitlines(), strict=True)
    ]


def _files(case: Case, folder: Path) -> dict[Path, tuple[int, int]]:
    """Return the path and size of a case's image, and of a tiny one of its kind."""
    sizes = [(case.width, case.height), _TINY]
    return {folder / f"{case.kind}-{width}x{height}": (width, height) for width, height in sizes}


# --- the images ---


def _noise(width: int, height: int, mode: str) -> Image.Image:
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(width).integers(0, 256, (height, width, channels), np.uint8)
    return Image.frombytes(mode, (width, height), values.tobytes())


def _saved(mode: str, format: str, **options: Any) -> Callable[[int, int], bytes]:
    """Return a function that makes a file from a width and a height."""

    def make(width: int, height: int) -> bytes:
        file = io.BytesIO()
        _noise(width, height, mode).save(file, format, **options)
        return file.getvalue()

    return make


def _sixteen_bits(width: int, height: int) -> bytes:
    values = np.random.default_rng(0).integers(0, 65_536, (height, width), np.uint16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _sixteen_bits_in_linear_light(channels: int) -> Callable[[int, int], bytes]:
    """Return a function that makes a PNG of 16 bits whose profile is not that of sRGB."""

    def make(width: int, height: int) -> bytes:
        shape = (height, width, channels)
        values = np.random.default_rng(0).integers(0, 65_536, shape, np.uint16)
        png = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        profile = build_profile("linear", SRGB_CHROMATICITIES, (1.0,)) or b""
        return png[:33] + chunk(b"iCCP", b"linear\0\0" + zlib.compress(profile)) + png[33:]

    return make


def _turned() -> bytes:
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURNED_RIGHT
    return exif.tobytes()


KINDS: dict[str, Callable[[int, int], bytes]] = {
    "jpeg": _saved("RGB", "JPEG", quality=90),
    "jpeg progressive": _saved("RGB", "JPEG", quality=90, progressive=True),
    "jpeg turned": _saved("RGB", "JPEG", quality=90, exif=_turned()),
    "jpeg grey": _saved("L", "JPEG", quality=90),
    "jpeg cmyk": _saved("CMYK", "JPEG", quality=90),
    "png": _saved("RGB", "PNG", compress_level=1),
    "png rgba": _saved("RGBA", "PNG", compress_level=1),
    "png grey alpha": _saved("LA", "PNG", compress_level=1),
    "png palette": _saved("P", "PNG", compress_level=1),
    "png 16 bits": _sixteen_bits,
    "png 16 bits profile": _sixteen_bits_in_linear_light(3),
    "png 16 bits alpha profile": _sixteen_bits_in_linear_light(4),
    "png turned": _saved("RGBA", "PNG", compress_level=1, exif=_turned()),
    "webp": _saved("RGB", "WEBP", quality=80, method=0),
    "webp alpha": _saved("RGBA", "WEBP", quality=80, method=0),
    "webp lossless": _saved("RGBA", "WEBP", lossless=True, quality=0, method=0),
    "tiff": _saved("RGB", "TIFF"),
    "tiff packed": _saved("RGBA", "TIFF", compression="tiff_deflate"),
    "bmp": _saved("RGB", "BMP"),
    "gif": _saved("P", "GIF"),
    "avif": _saved("RGB", "AVIF", quality=60, speed=10),
}
"""Functions that make an image file of a width and a height, by the kind's name."""


# --- in the measuring process ---


class _OneMask:
    """Segmenters that return one mask: a soft disk that fills most of the image."""

    def __init__(self) -> None:
        rows, columns = np.mgrid[:_MODEL_SIDE_PX, :_MODEL_SIDE_PX] - _MODEL_SIDE_PX / 2
        distance = np.hypot(rows, columns)
        mask = np.clip(4 * (0.49 * _MODEL_SIDE_PX - distance), 0, 255)
        self._mask: Pixels = mask.astype(np.uint8)

    async def describe(self, name: str) -> ModelInfo:
        """See Segmenters."""
        return ModelInfo(name=name, size_px=_MODEL_SIDE_PX, sha256="0" * 64)

    async def segment(self, name: str, image: Pixels, priority: Priority) -> Pixels:
        """See Segmenters."""
        return self._mask


def _resident(field: str = "VmRSS") -> int:
    """Return a field of this process's memory, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _reset_peak() -> None:
    """Reset the field ``VmHWM`` of this process (man 5 proc_pid_clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


async def _measure(case: Case, folder: Path) -> tuple[int, int, int]:
    """Return the measured and the charged memory of a case, and the size of its file, in bytes."""
    config = AppConfig.load({"pipeline": {"threads": 1}})
    imaging = imaging_threads(config.pipeline)
    pipeline = ImagePipeline(config, open_store(config), _OneMask(), imaging)
    recipe = Recipe.model_validate({"checks": {"min_subject_px": 1}, **case.recipe})
    path, tiny = _files(case, folder)
    await pipeline.cut_out(tiny.read_bytes(), recipe)
    before = _resident()
    _reset_peak()
    data = path.read_bytes()
    charged = bytes_needed(read_header(data, config.limits), recipe, len(data))
    await pipeline.cut_out(data, recipe)
    return _resident("VmHWM") - before, charged, len(data)


def _measure_in_child(case: Case, folder: Path) -> str:
    """Return a line of JSON with the memory of a case, which a child process measures."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        found = asyncio.run(_measure(case, folder))
        os.write(writer, json.dumps(found).encode())
        # Without the parent's handlers of exit.
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        line = lines.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise ChildProcessError(f"{case} could not be measured")
    return line


def main() -> None:
    """Measure the cases that the standard input has as JSON, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.harness.peak_memory")
    parser.add_argument("folder", type=Path, help="folder of the image files")
    folder = parser.parse_args().folder
    keep_freed_memory()
    # The children need not look through what they do not change.
    gc.collect()
    gc.freeze()
    for fields in json.loads(sys.stdin.read()):
        print(_measure_in_child(Case(**fields), folder), flush=True)


if __name__ == "__main__":
    main()
