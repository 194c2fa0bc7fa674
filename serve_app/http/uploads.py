"""Reading request bodies: a raw image or a multipart form, limited in bytes while they arrive."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from serve_app.errors import (
    EmptyImage,
    ForeedgeError,
    ImageTooLarge,
    InvalidRecipe,
    InvalidRequest,
    UnsupportedFormat,
)
from serve_app.http.admission import Reserve

RECIPE_BYTES = 64 * 1024
"""Maximum size of a field of the form, and of a recipe that is a file of it, in bytes."""

_FORM_OVERHEAD_BYTES = 2 * RECIPE_BYTES


def is_multipart_form(request: Request) -> bool:
    """Return whether the body of a request is a multipart form."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


@dataclass(frozen=True, slots=True)
class FormRules:
    """What a form with an image may contain."""

    max_files: int
    """Maximum number of files."""
    max_fields: int
    """Maximum number of text fields."""
    image: str | None
    """Name of the file that is the image, whatever other files there are. If None, or without a
    file of this name, the form must have one file."""
    with_recipe: bool
    """Whether a file named ``recipe`` is the text of a recipe."""
    advice: str
    """What to send, for the error about another number of files."""


CUTOUT_FORM = FormRules(
    # The image, and the recipe.
    max_files=2,
    max_fields=30,
    image=None,
    with_recipe=True,
    advice="Send exactly one, the image (a file named 'recipe' is not counted).",
)
"""Rules for ``/v1/cutout``."""

REMBG_FORM = FormRules(
    max_files=100,
    # As many as rembg's server takes.
    max_fields=1_000,
    image="file",
    with_recipe=False,
    advice="Send the image as a file named 'file'.",
)
"""Rules for ``/api/remove``: like rembg's server, it ignores what it does not know."""


@dataclass(frozen=True, slots=True)
class UploadedImage:
    """The image of a request, and the fields sent with it."""

    data: bytes
    """Content of the image file, not yet decoded."""
    fields: dict[str, str]
    """Text fields of the form by name. Empty if the body is the raw image."""


async def read_uploaded_image(
    request: Request, max_bytes: int, reserve: Reserve, rules: FormRules
) -> UploadedImage:
    """Return the image of a request, and the fields of its form.

    Args:
        request: Request whose body is the raw image, or a form with the image as a file.
        max_bytes: Maximum size of the image. Reading stops once it is exceeded.
        reserve: Called with the size of each chunk. Raises Overloaded when the buffer is full.
        rules: What a form may contain.

    Raises:
        ImageTooLarge: The image has more than ``max_bytes`` bytes.
        EmptyImage: The image has no bytes.
        UnsupportedFormat: The form does not have exactly one image file.
        InvalidRecipe: The recipe of the form is too long.
        InvalidRequest: The form is malformed or has a field that is too long, or the client
            disconnected.
    """
    form = is_multipart_form(request)
    too_large = ImageTooLarge(
        f"The image has more than {max_bytes:,} bytes, the limit of this server (limits.max_bytes)."
    )
    limit = max_bytes + (_FORM_OVERHEAD_BYTES if form else 0)
    limited = _limited_request(request, limit, too_large, reserve)
    data, fields = await _read_form(limited, rules) if form else (await _read_all(limited), {})
    if len(data) > max_bytes:
        raise too_large
    if not data:
        raise EmptyImage(
            "The request has no image. Send its bytes as the body, or as a file of a form."
        )
    return UploadedImage(data, fields)


async def read_body(
    request: Request, max_bytes: int, too_large: ForeedgeError, reserve: Reserve
) -> bytes:
    """Return the body of a request.

    Args:
        request: Request whose body has not been read yet.
        max_bytes: Maximum size of the body. Reading stops once it is exceeded.
        too_large: Error to raise for a longer body.
        reserve: Called with the size of each chunk. Raises Overloaded when the buffer is full.

    Raises:
        InvalidRequest: The client disconnected.
    """
    return await _read_all(_limited_request(request, max_bytes, too_large, reserve))


def _limited_request(
    request: Request, limit: int, too_large: ForeedgeError, reserve: Reserve
) -> Request:
    """Return the same request with a body that raises an error once it exceeds a limit.

    The limit is below Starlette's own reading, so that it also holds for its form parser.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await request.receive()
        count = len(message.get("body", b""))
        received += count
        if received > limit:
            raise too_large
        reserve(count)
        return message

    return Request(request.scope, receive_limited)


async def _read_all(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise InvalidRequest("The client disconnected before the body was complete.") from error


async def _read_form(request: Request, rules: FormRules) -> tuple[bytes, dict[str, str]]:
    try:
        async with request.form(max_files=rules.max_files, max_fields=rules.max_fields) as form:
            return await _image_and_fields(form, rules)
    except ClientDisconnect as error:
        raise InvalidRequest("The client disconnected before the form was complete.") from error
    except HTTPException as error:
        if error.status_code != HTTPStatus.BAD_REQUEST:
            raise
        raise InvalidRequest(f"The form cannot be read: {error.detail}") from error
    except (LookupError, UnicodeError) as error:
        # The form names an unknown character set, or has bytes that are invalid in it.
        raise InvalidRequest(f"The text of the form cannot be decoded: {error}") from error


def _limited(text: str, name: str) -> str:
    if len(text) <= RECIPE_BYTES:
        return text
    if name == "recipe":
        raise InvalidRecipe(f"The recipe has more than {RECIPE_BYTES:,} bytes, the limit.")
    raise InvalidRequest(
        f"The field {name[:100]!r} of the form has more than {RECIPE_BYTES:,} bytes, the limit."
    )


async def _image_and_fields(form: FormData, rules: FormRules) -> tuple[bytes, dict[str, str]]:
    files: list[UploadFile] = []
    named: list[UploadFile] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields[name] = _limited(value, name)
        elif name == rules.image:
            named.append(value)
        elif name == "recipe" and rules.with_recipe:
            fields[name] = _limited((await value.read(RECIPE_BYTES + 1)).decode(), name)
        else:
            files.append(value)
    # As in rembg's server, the last one counts.
    candidates = named[-1:] or files
    if len(candidates) != 1:
        raise UnsupportedFormat(f"The form has {len(candidates)} files. {rules.advice}")
    return await candidates[0].read(), fields
