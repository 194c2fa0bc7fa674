"""From a request to its image: bounded in bytes while they arrive, raw or in a form."""

from __future__ import annotations

from collections.abc import Callable
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

RECIPE_BYTES = 64 * 1024
"""Most bytes of a recipe that is the JSON part of a form."""

_FORM_OVERHEAD_BYTES = 2 * RECIPE_BYTES
_FORM_FIELDS = 30


def is_form(request: Request) -> bool:
    """Return whether a request's body is a multipart form."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


@dataclass(frozen=True, slots=True)
class Upload:
    """What a request brought."""

    data: bytes
    """An image file, for all that is known."""
    fields: dict[str, str]
    """Of the form beside it."""


async def read_upload(request: Request, max_bytes: int, hold: Callable[[int], None]) -> Upload:
    """Return the image of a request, and the fields beside it in its form.

    Args:
        request: The image is the raw body, or the file in a multipart form.
        max_bytes: Of the image; what is longer is not read to its end.
        hold: Told of the bytes as they come; may refuse.

    Raises:
        ImageTooLarge: The image has more bytes.
        EmptyImage: There is none.
        UnsupportedFormat: A form without exactly one file.
        InvalidRequest: A form that cannot be read, or a client that went away.
    """
    form = is_form(request)
    too_large = ImageTooLarge(
        f"the image has more than {max_bytes:,} bytes, the limit (limits.max_bytes)"
    )
    _bound(request, max_bytes + (_FORM_OVERHEAD_BYTES if form else 0), too_large, hold)
    data, fields = await _read_form(request) if form else (await _read(request), {})
    if len(data) > max_bytes:
        raise too_large
    if not data:
        raise EmptyImage(
            "the request has no image: send its bytes as the body, or as the file of a form"
        )
    return Upload(data, fields)


async def read_body(
    request: Request, max_bytes: int, too_large: ForeedgeError, hold: Callable[[int], None]
) -> bytes:
    """Return the body of a request.

    Args:
        request: Whose body was not read yet.
        max_bytes: What is longer is not read to its end.
        too_large: The error that is raised then.
        hold: Told of the bytes as they come; may refuse.

    Raises:
        InvalidRequest: The client went away.
    """
    _bound(request, max_bytes, too_large, hold)
    return await _read(request)


def _bound(
    request: Request, limit: int, too_large: ForeedgeError, hold: Callable[[int], None]
) -> None:
    """Let a request's body end with an error once it is too long."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    receive, received = request.receive, 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        count = len(message.get("body", b""))
        received += count
        if received > limit:
            raise too_large
        hold(count)
        return message

    # Starlette offers no other place for a limit that also holds for its form parser.
    request._receive = bounded


async def _read(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise InvalidRequest("the client went away before the body had arrived") from error


async def _read_form(request: Request) -> tuple[bytes, dict[str, str]]:
    try:
        # A second file may be the recipe.
        async with request.form(max_files=2, max_fields=_FORM_FIELDS) as content:
            return await _parts(content)
    except ClientDisconnect as error:
        raise InvalidRequest("the client went away before the form had arrived") from error
    except HTTPException as error:
        if error.status_code != HTTPStatus.BAD_REQUEST:
            raise
        raise InvalidRequest(f"the form cannot be read: {error.detail}") from error
    except (LookupError, UnicodeError) as error:
        # A form that names a character set that there is not, or does not keep to it.
        raise InvalidRequest(f"the form's text cannot be read: {error}") from error


async def _parts(form: FormData) -> tuple[bytes, dict[str, str]]:
    files: list[UploadFile] = []
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields[name] = value
        elif name == "recipe":
            text = await value.read(RECIPE_BYTES + 1)
            if len(text) > RECIPE_BYTES:
                raise InvalidRecipe(f"the recipe has more than {RECIPE_BYTES:,} bytes")
            fields[name] = text.decode()
        else:
            files.append(value)
    if len(files) != 1:
        raise UnsupportedFormat("the form must have exactly one file, the image")
    return await files[0].read(), fields
