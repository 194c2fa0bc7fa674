"""Small previews of images and cut-outs, embedded in the report's page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageOps

from ingest.runs.records import Record
from serve_app.config import ImageLimits
from serve_app.errors import ForeedgeError
from serve_app.imaging.formats.kinds import read_container
from serve_app.storage.protocol import ObjectStore


@dataclass(frozen=True, slots=True)
class Preview:
    """A small image, ready to be embedded."""

    uri: str
    """The image as a ``data:`` URI."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""


@dataclass(frozen=True, slots=True)
class PreviewReader:
    """A reader of the images and cut-outs of jobs, as previews."""

    store: ObjectStore
    limits: ImageLimits
    """Limits beyond which an image is not decoded."""
    on_refused: Callable[[ForeedgeError], None] = lambda _: None
    """Function to call, in any thread, with the error of each object that the store refuses to
    read. An object that does not exist is no refusal."""

    def source(self, record: Record, side_px: int) -> Preview | None:
        """Return a preview of a job's image, or None if it cannot be read. Blocks."""
        source = record.get("source") or {}
        return self.object(source.get("bucket"), source.get("key"), side_px)

    def result(self, record: Record, side_px: int) -> Preview | None:
        """Return a preview of a job's cut-out, or None if it cannot be read. Blocks."""
        return self.object(record.get("output_bucket"), record.get("output_key"), side_px)

    def object(self, bucket: str | None, key: str | None, side_px: int) -> Preview | None:
        """Return a preview of an object, or None if there is none or it cannot be read. Blocks."""
        if bucket is None or key is None:
            return None
        try:
            data = self.store.get(bucket, key, max_bytes=self.limits.max_bytes)
        except ForeedgeError as error:
            if error.refusal:
                self.on_refused(error)
            return None
        return make_preview(data, self.limits, side_px)


def make_preview(data: bytes, limits: ImageLimits, side_px: int) -> Preview | None:
    """Return a preview of an image file, or None if it is no image within the limits.

    Args:
        data: Content of the file.
        limits: Numbers of pixels beyond which the image is not decoded.
        side_px: Longest side of the preview in pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = read_container(data).format
            image: Image.Image = Image.open(io.BytesIO(data), formats=(kind,))
            width, height = image.size
            if width * height > limits.max_pixels or max(width, height) > limits.max_side_px:
                return None
            image.draft("RGB", (2 * side_px, 2 * side_px))
            image = ImageOps.exif_transpose(image)
            return embed_image(image, side_px)
    # Pillow's plugins raise nearly anything for a broken file. The page then lacks one preview.
    except Exception:  # noqa: BLE001
        return None


def embed_image(image: Image.Image, side_px: int) -> Preview:
    """Return a small copy of an image as a preview.

    Args:
        image: The image.
        side_px: Longest side of the preview in pixels.
    """
    small = image.convert("RGBA" if image.has_transparency_data else "RGB")
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # A cut-out as PNG is ten times as large.
    small.save(buffer, "WEBP", quality=80, method=4)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Preview(f"data:image/webp;base64,{encoded}", small.width, small.height)
