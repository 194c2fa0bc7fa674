"""What passes between the parts: Job, Recipe, Outcome.

All are frozen pydantic models, so that a value that exists is a valid one, and so that the same
recipe always has the same canonical form, which the fingerprint of a result is made of.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from serve_app.errors import ForeedgeError, InvalidRecipe, Retry

PIPELINE_VERSION = 2
"""Part of every fingerprint: raised when the same inputs begin to give other bytes."""

MEDIA_TYPES = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
"""Media type of each output format."""

_EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg"}
_COLOUR = re.compile(r"#[0-9a-f]{6}([0-9a-f]{2})?")
_FINGERPRINT_HEX_DIGITS = 20


class Contract(BaseModel):
    """Base of what crosses a boundary: frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Thumbnail(Contract):
    """A JPEG beside the result, for lists and search pages."""

    size_px: Annotated[int, Field(ge=16, le=2048)] = 300
    """Longest side in pixels."""
    quality: Annotated[int, Field(ge=1, le=100)] = 85


class Checks(Contract):
    """What a mask must pass; a mask that fails sends the image to the recipe's next model."""

    min_subject_px: Annotated[int, Field(ge=0)] = 100
    """Shortest side of the subject's bounding box in pixels; 0 accepts even an image without a
    subject, whose mask is empty."""
    min_subject_area: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Least share of the image's pixels that the subject covers; None turns the check off."""
    max_aspect_change: Annotated[float, Field(gt=1)] | None = None
    """Largest ratio between the aspects of subject and image; None turns the check off."""


class Matting(Contract):
    """How soft edges get their transparency and colours; see ``imaging.matting``."""

    method: Literal["off", "closed_form", "decontaminate"] = "off"
    """``closed_form`` estimates both, in the band where the mask is unsure; ``decontaminate`` keeps
    the mask and estimates colours alone, without the background's share."""
    foreground_above: Annotated[int, Field(ge=0, le=255)] = 240
    """Mask values above it are the subject's for certain."""
    background_below: Annotated[int, Field(ge=0, le=255)] = 10
    """Mask values below it are the background's for certain."""
    erode_px: Annotated[int, Field(ge=0, le=1000)] = 10
    """Side of the square by which both are shrunk, so that the band between them gets wider."""


class Recipe(Contract):
    """How an image becomes its outputs."""

    models: tuple[str, ...] = ()
    """Models in order of preference; empty means those that the application serves, in order."""
    post_process_mask: bool = False
    """Smooths the mask and leaves nothing half transparent, as rembg's option of this name."""
    matting: Matting = Matting()
    """An object, or its method alone: ``off``, ``closed_form`` or ``decontaminate``."""
    background: str = "transparent"
    """``transparent``, ``white``, ``black``, ``#rrggbb``, ``auto`` (black below a mean brightness
    of the subject of 128, else white), or ``#rrggbbaa``, which keeps an alpha channel."""
    format: Literal["png", "webp", "jpeg"] = "png"
    quality: Annotated[int, Field(ge=1, le=100)] = 85
    """Of WebP and JPEG."""
    png_compression: Annotated[int, Field(ge=0, le=9)] = 1
    """1: fast, and on photographs some 10 % larger than 6, which takes 15 times as long
    (docs/performance.md). The other levels are zlib's, with the best filter for each row."""
    mask_only: bool = False
    crop_to_subject: bool = False
    thumbnail: Thumbnail | None = None
    checks: Checks = Checks()

    @field_validator("matting", mode="before")
    @classmethod
    def _method_alone(cls, value: object) -> object:
        return {"method": value} if isinstance(value, str) else value

    @field_validator("background")
    @classmethod
    def _known_background(cls, value: str) -> str:
        value = value.lower()
        if value in {"transparent", "white", "black", "auto"} or _COLOUR.fullmatch(value):
            return value
        raise ValueError("must be transparent, white, black, auto, #rrggbb or #rrggbbaa")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.format == "jpeg" and self.has_alpha:
            raise ValueError("jpeg has no transparency: choose another background, or png or webp")
        return self

    @property
    def has_alpha(self) -> bool:
        """Whether the result has an alpha channel."""
        translucent = self.background == "transparent" or len(self.background) == len("#rrggbbaa")
        return translucent and not self.mask_only

    @property
    def media_type(self) -> str:
        """Media type of the result."""
        return MEDIA_TYPES[self.format]

    def canonical(self) -> str:
        """Return the one JSON form of this recipe: every field, sorted by declaration."""
        return self.model_dump_json()


PRESETS: dict[str, dict[str, Any]] = {
    "cutout": {},
    "catalog": {
        "matting": "closed_form",
        "background": "auto",
        "thumbnail": {"size_px": 300, "quality": 85},
    },
    "mask": {"mask_only": True},
}
"""Recipes by name: the fields in which each differs from the defaults."""


def parse_recipe(value: str | dict[str, Any] | None, **overrides: Any) -> Recipe:
    """Make a recipe from a preset's name or its fields.

    Args:
        value: Name of a preset, an object of recipe fields, or None for ``cutout``.
        **overrides: Fields that win over those of ``value``.

    Raises:
        InvalidRecipe: The preset is unknown, or a field is unknown or has an invalid value.
    """
    if value is None:
        value = "cutout"
    if isinstance(value, str):
        if value not in PRESETS:
            known = ", ".join(PRESETS)
            raise InvalidRecipe(f"recipe {value!r} is not a preset; the presets are {known}")
        value = PRESETS[value]
    try:
        return Recipe.model_validate({**value, **overrides})
    except ValidationError as error:
        raise InvalidRecipe(f"recipe: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Return a pydantic error as one line: each field with what is wrong with it."""
    parts = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        parts.append(f"{where}: {text}" if where else text)
    return "; ".join(parts)


class Source(Contract):
    """The photograph: one object, or one version of it."""

    bucket: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1, max_length=1024)]
    version_id: str | None = None
    etag: str | None = None
    """Without quotation marks; where it is given, another ETag is ``source_changed``."""

    @field_validator("etag")
    @classmethod
    def _unquoted(cls, value: str | None) -> str | None:
        return value.strip('"') if value else None


class Output(Contract):
    """Where the result goes."""

    bucket: Annotated[str, Field(min_length=1)]
    prefix: Annotated[str, Field(max_length=512)] = "cutouts/"

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        return value if not value or value.endswith("/") else value + "/"


class Job(Contract):
    """One photograph to process: where it is, where its result goes, and how it is made."""

    job_id: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default_factory=lambda: uuid.uuid4().hex
    )
    run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] = "live"
    """The run that the job belongs to; the name of a folder in the ledger."""
    source: Source
    output: Output
    recipe: Recipe = Recipe()


class Box(Contract):
    """A rectangle of pixels; ``right`` and ``bottom`` are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.bottom - self.top


class Cutout(Contract):
    """What is known of a finished cut-out, apart from its bytes."""

    model: str
    width: int
    """Of the result, in pixels."""
    height: int
    subject: Box
    """In pixels of the oriented source."""
    mask_confidence: Annotated[float, Field(ge=0, le=1)]
    """Share of the subject that the model was decided about; see ``imaging.mask.confidence``."""
    stages_ms: dict[str, float] = {}
    """Milliseconds of each stage, in the order in which they ran."""


class Outcome(Contract):
    """How one job ended; one record of the ledger."""

    job_id: str
    run_id: str
    status: Literal["done", "skipped_existing", "failed"]
    source: Source | None = None
    """None where the message could not be read."""
    output_bucket: str | None = None
    output_key: str | None = None
    thumbnail_key: str | None = None
    output_bytes: int | None = None
    cutout: Cutout | None = None
    code: str | None = None
    message: str | None = None
    retry: Retry | None = None
    receive_count: int = 1
    finished_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def failed(cls, job: Job, error: ForeedgeError) -> Outcome:
        """Return the outcome of a job that ended with ``error``."""
        return cls(
            job_id=job.job_id,
            run_id=job.run_id,
            status="failed",
            source=job.source,
            code=error.code,
            message=error.message,
            retry=error.retry,
        )


def fingerprint(source: Source, recipe: Recipe, model_digests: Sequence[str]) -> str:
    """Return the name of a result: the same for the same input, recipe and model files.

    Args:
        source: Must have an ETag or a version, or else changed content would keep its name.
        recipe: With its models resolved.
        model_digests: sha256 of the recipe's model files, in the recipe's order.

    Returns:
        20 hexadecimal digits (80 bits: at 10 million results the chance of any collision is
        below 1e-10).
    """
    content = source.version_id or source.etag
    if content is None:
        raise ValueError(f"s3://{source.bucket}/{source.key} has neither an ETag nor a version")
    return _name(source.bucket, source.key, content, recipe.canonical(), *model_digests)


def content_fingerprint(data: bytes, recipe: Recipe, model_digests: Sequence[str]) -> str:
    """Return the name of the result of an image that is in no object store.

    Args:
        data: The image file.
        recipe: With its models resolved.
        model_digests: sha256 of the recipe's model files, in the recipe's order.
    """
    return _name(hashlib.sha256(data).hexdigest(), recipe.canonical(), *model_digests)


def _name(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in [*parts, str(PIPELINE_VERSION)]:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:_FINGERPRINT_HEX_DIGITS]


def output_key(job: Job, name: str) -> str:
    """Return the key of a job's result, given its fingerprint."""
    return f"{_folder(job)}/{name}.{_EXTENSIONS[job.recipe.format]}"


def thumbnail_key(job: Job, name: str) -> str:
    """Return the key of a job's thumbnail, given its fingerprint."""
    return f"{_folder(job)}/{name}_thumb.jpg"


def _folder(job: Job) -> str:
    stem = PurePosixPath(job.source.key).with_suffix("").as_posix().lstrip("/")
    return f"{job.output.prefix}{stem}"
