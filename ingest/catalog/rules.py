"""The rules of the collection's application: which image is cut out, and what its rows then say.

Everything here is a pure function of rows. The rules are those of the worker that Foreedge
replaces (docs/catalog.md), except that ties are broken and that one image has one cut-out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.contracts.recipe import Recipe

FOLDER = "books/"
"""Key prefix of the collection's objects. The tables hold keys without it."""

_TYPE_ORDER = ("title_page", "binding", "cover", "spine")
"""Types of images in the order in which a book's image is chosen by them."""
_MATTED_BY_OLD_WORKER = "u2net"
_MODEL_LENGTH = 50
"""Length of the column ``model_used``, in characters."""


@dataclass(frozen=True, slots=True)
class BookImage:
    """One row of ``book_images``: an image of a book, or the cut-out of one."""

    id: int
    """Id of the row."""
    s3_key: str
    """Key of the object, usually without the prefix."""
    image_type: str | None
    """What the image shows, such as ``cover``. None for imported images."""
    display_order: int
    """Position among the images of the book, from 0."""
    is_primary: bool
    """Whether lists show this image for the book."""
    is_background_processed: bool
    """Whether the row is a cut-out."""


def choose_source(images: Sequence[BookImage], asked_id: int | None) -> BookImage | None:
    """Return the image of a book that is cut out, or None if the book has no images.

    Args:
        images: Images of the book.
        asked_id: Id of the image that the job asks for. It may be deleted.
    """
    ordered = in_order(images)
    asked = [image for image in ordered if image.id == asked_id]
    candidates = [image for image in ordered if not image.is_background_processed]
    if not candidates:
        return next(iter(asked + ordered), None)
    for wanted in _TYPE_ORDER:
        for image in candidates:
            if image.image_type == wanted:
                return image
    primaries = [image for image in candidates if image.is_primary]
    open_asked = [image for image in asked if not image.is_background_processed]
    return (primaries + open_asked + candidates)[0]


def in_order(images: Sequence[BookImage]) -> list[BookImage]:
    """Return images in the order in which the application shows them, with ties broken by id."""
    return sorted(images, key=lambda image: (image.display_order, image.id))


def arrange(images: Sequence[BookImage], cutout_id: int | None, source_id: int) -> list[BookImage]:
    """Return the images of a book that follow a cut-out, which comes first, in their order.

    The image that was cut out comes last. The others keep their order.

    Args:
        images: All images of the book.
        cutout_id: Id of the cut-out. None if it has no row yet.
        source_id: Id of the image that was cut out.
    """
    following = [image for image in in_order(images) if image.id != cutout_id]
    # The sort is stable, so that only the source moves.
    return sorted(following, key=lambda image: image.id == source_id)


def object_key(s3_key: str) -> str:
    """Return the key of the object of a row. Rows of early imports hold the prefix already."""
    return s3_key if s3_key.startswith(FOLDER) else FOLDER + s3_key


def cutout_stem(book_id: int, source_id: int) -> str:
    """Return the beginning of the ``s3_key`` of the cut-out of an image.

    The application finds orphans of a book by the digits before the first underscore.
    """
    return f"{book_id}_processed_{source_id}_"


def find_cutout(images: Sequence[BookImage], book_id: int, source_id: int) -> BookImage | None:
    """Return the row of the cut-out that an image has already, or None."""
    stem = cutout_stem(book_id, source_id)
    return next((image for image in in_order(images) if image.s3_key.startswith(stem)), None)


def source_of_cutout(s3_key: str, book_id: int) -> int | None:
    """Return the id of the image that a cut-out was made of, or None if its name does not say."""
    found = re.match(rf"{book_id}_processed_(\d+)_", s3_key)
    return None if found is None else int(found[1])


def model_used(model: str, recipe: Recipe) -> str:
    """Return what ``model_used`` says: the name of the model, by the old worker's convention.

    Args:
        model: Name of the model whose mask was used.
        recipe: Recipe of the cut-out.
    """
    matted = recipe.matting.method == "closed_form"
    name = f"{model}-alpha" if matted and model == _MATTED_BY_OLD_WORKER else model
    return name[:_MODEL_LENGTH]


def cloudfront_url(cdn_domain: str | None, s3_key: str) -> str | None:
    """Return the URL of a cut-out behind CloudFront, or None if no domain is configured."""
    return f"https://{cdn_domain}/{object_key(s3_key)}" if cdn_domain else None
