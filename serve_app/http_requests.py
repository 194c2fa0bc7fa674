"""From a request to an image and a recipe."""

from __future__ import annotations

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.types import Message

from serve_app.contracts import MEDIA_TYPES, Recipe, describe, parse_recipe
from serve_app.errors import EmptyImage, ImageTooLarge, InvalidRecipe, UnsupportedFormat

_FORM_OVERHEAD_BYTES = 64 * 1024


class Options(BaseModel):
    """Query parameters, or fields of a form, that make a recipe."""

    model_config = ConfigDict(extra="forbid")

    recipe: str = "cutout"
    """A preset's name; the other options win over its fields."""
    models: str | None = None
    """Names with commas between."""
    background: str | None = None
    format: str | None = None
    quality: str | None = None
    png_compression: str | None = None
    matting: str | None = None
    mask_only: str | None = None
    crop_to_subject: str | None = None
    min_subject_px: str | None = None
    min_subject_area: str | None = None
    max_aspect_change: str | None = None


def make_recipe(options: Options, accept: str | None) -> Recipe:
    """Return the recipe that a request asks for.

    Args:
        options: Of the query or the form; their text is converted by the recipe's own types.
        accept: The ``Accept`` header; it chooses the format where the options do not.

    Raises:
        InvalidRecipe: An option's value is invalid.
    """
    fields = options.model_dump(exclude_none=True)
    preset = fields.pop("recipe")
    if "models" in fields:
        fields["models"] = [name.strip() for name in fields["models"].split(",")]
    checks = {name: fields.pop(name) for name in list(fields) if name.startswith(("min_", "max_"))}
    if checks:
        fields["checks"] = checks
    if "format" not in fields and (preferred := preferred_format(accept)):
        fields["format"] = preferred
        if preferred == "jpeg" and "background" not in fields:
            # A client that reads nothing but JPEG can have no transparency.
            fields["background"] = "white"
    return parse_recipe(preset, **fields)


def options_of(fields: dict[str, str]) -> Options:
    """Return the options in the fields of a form.

    Raises:
        InvalidRecipe: There is a field that is no option.
    """
    try:
        return Options(**fields)
    except ValidationError as error:
        raise InvalidRecipe(describe(error)) from error


def preferred_format(accept: str | None) -> str | None:
    """Return the output format that an ``Accept`` header names first; None if it names none."""
    by_type = {media_type: name for name, media_type in MEDIA_TYPES.items()}
    for item in (accept or "").split(","):
        media_type = item.split(";")[0].strip().lower()
        if media_type in by_type:
            return by_type[media_type]
    return None


async def read_upload(request: Request, max_bytes: int) -> tuple[bytes, dict[str, str]]:
    """Return the image of a request, and the fields beside it in its form.

    Args:
        request: The image is the raw body, or the file in a multipart form.
        max_bytes: Of the image; what is longer is not read to its end.

    Raises:
        ImageTooLarge: The image has more bytes.
        EmptyImage: There is none.
        UnsupportedFormat: A form without exactly one file.
    """
    form = request.headers.get("content-type", "").startswith("multipart/form-data")
    limit = max_bytes + (_FORM_OVERHEAD_BYTES if form else 0)
    _bound(request, limit, max_bytes)
    fields: dict[str, str] = {}
    if form:
        async with request.form(max_files=1, max_fields=20) as content:
            data = await _file_of(content)
            fields = {name: value for name, value in content.items() if isinstance(value, str)}
    else:
        data = await request.body()
    if not data:
        raise EmptyImage(
            "the request has no image: send its bytes as the body, or as the file of a form"
        )
    return data, fields


def _bound(request: Request, limit: int, max_bytes: int) -> None:
    """Let a request's body end with an error once it is too long."""
    too_large = ImageTooLarge(
        f"the image has more than {max_bytes:,} bytes, the limit (limits.max_bytes)"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    receive, received = request.receive, 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large
        return message

    # Starlette offers no other place for a limit that also holds for its form parser.
    request._receive = bounded


async def _file_of(form: FormData) -> bytes:
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    if len(files) != 1:
        raise UnsupportedFormat("the form must have exactly one file, the image")
    return await files[0].read()
