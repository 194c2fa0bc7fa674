"""The memory that an image takes while it is processed, from its header and its recipe.

Every term is in bytes per pixel, and was measured: ``python -m loadtests.benchmarks.memory``
compares the sum with the peak of a process for each format and recipe.
"""

from __future__ import annotations

from serve_app.contracts.recipe import Recipe
from serve_app.imaging.decode import ImageHeader

_FIXED = 4 * 2**20
"""Bytes for any image: the buffers of compressors, strips, and tables of filters."""
_FILES = 3
"""Copies of the file: as it came, and split from its metadata for the header and the pixels."""

_DECODE = 11
"""Decoding: Pillow's RGB, which takes 4 bytes, with the copy that becomes the image, or with the
image that a conversion replaces. An EXIF orientation and a profile need no more."""
_DECODE_ALPHA = 16
"""Decoding an image with transparency, whose colours and alpha are separated."""
_DECODE_WIDE, _DECODE_WIDE_ALPHA = 18, 27
"""Decoding samples of 16 bits that have a profile: they are decoded again, by OpenCV, which holds
them twice."""
_DECODE_VIDEO = 24
"""Decoding AVIF and HEIC: planes of up to 16 bits, and frames that the decoder refers to."""
_VIDEO_FORMATS = frozenset({"AVIF", "HEIF"})

_LARGE_PIXELS = 11_000_000
"""Pixels from which the arrays of an image have over 32 MiB. glibc then gives each of them memory
of its own, and the freed blocks of Pillow's image stay next to them."""
_DECODE_LARGE, _RENDER_LARGE = 2, 3
"""What such an image takes in addition: 14 and 16 bytes were measured with 24 and 48 megapixels,
and 12 with 12."""

_COLOURS, _ALPHA, _MASK = 3, 1, 1
"""What is kept of an image until its end: colours, transparency of its own, the mask."""
_POST_PROCESSING = 4
_ENCODE_PNG = 1
"""Filtered strips. The file is counted by the channels, each of which takes up to a byte."""
_ENCODE_JPEG = 6
"""Pillow's RGB and the file."""
_ENCODE_WEBP = 13
"""libwebp's buffers, planes and tokens, and Pillow's RGB."""
_ENCODE_WEBP_ALPHA = 21
"""The same with the lossless compression of a mask's alpha, which looks for repetitions."""
_ENCODE_WEBP_OWN_ALPHA = 8
"""What it needs beyond that if the image has a transparency of its own, which may be noise."""
_THUMBNAIL = 5
"""Pillow's copy of the result, which is then reduced."""


def bytes_needed(header: ImageHeader, recipe: Recipe, file_bytes: int) -> int:
    """Return the most memory that the steps of an image take at the same time, in bytes.

    Matting is not included. It has a limit of its own (``pipeline.matting_threads``).

    Args:
        header: Header of the image.
        recipe: Recipe of the cut-out.
        file_bytes: Size of the image file.
    """
    decoding, rendering = _decoding(header), _rendering(header, recipe)
    if header.pixels > _LARGE_PIXELS:
        decoding, rendering = decoding + _DECODE_LARGE, rendering + _RENDER_LARGE
    per_pixel = max(decoding, rendering)
    return _FIXED + _FILES * file_bytes + per_pixel * header.pixels


def _decoding(header: ImageHeader) -> int:
    if header.format in _VIDEO_FORMATS:
        return _DECODE_VIDEO
    if header.has_wide_colours:
        return _DECODE_WIDE_ALPHA if header.has_alpha else _DECODE_WIDE
    return _DECODE_ALPHA if header.has_alpha else _DECODE


def _rendering(header: ImageHeader, recipe: Recipe) -> int:
    """Return the bytes per pixel from the mask to the encoded result."""
    kept = _COLOURS + _MASK + (_ALPHA + _MASK if header.has_alpha else 0)
    channels = 1 if recipe.mask_only else 4 if recipe.has_alpha else 3
    # The mask is the result itself if only that is wanted.
    result = 0 if recipe.mask_only else channels
    if recipe.format == "webp":
        encoding = _ENCODE_WEBP_ALPHA if recipe.has_alpha else _ENCODE_WEBP
        if recipe.has_alpha and header.has_alpha:
            encoding += _ENCODE_WEBP_OWN_ALPHA
    elif recipe.format == "jpeg":
        encoding = _ENCODE_JPEG
    else:
        encoding = _ENCODE_PNG + channels
    thumbnail = _THUMBNAIL if recipe.thumbnail else 0
    after_mask = _POST_PROCESSING if recipe.post_process_mask else 0
    return kept + max(after_mask, result + encoding + thumbnail)
