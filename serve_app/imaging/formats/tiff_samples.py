"""What a TIFF file declares of its samples: honoured, or refused in words.

Source: TIFF 6.0 (Adobe, 1992), sections 8, 16, 18, 20, 21 and 23. Pillow reads the samples of some
kinds as if they were others, so those are refused before it sees them.
"""

from __future__ import annotations

from serve_app.errors import CorruptImage, UnsupportedFormat
from serve_app.imaging.formats.container import Samples
from serve_app.imaging.formats.directory import Directory

BITS = 258
COMPRESSION = 259
PHOTOMETRIC = 262
COLOUR_MAP = 320
PLANAR = 284
EXTRA = 338

_SAMPLES, _MAX_VALUE, _INK_SET = 277, 281, 332
_FORMAT, _S_MIN, _S_MAX, _SUBSAMPLING, _REFERENCE = 339, 340, 341, 530, 532
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_FAXES = frozenset({2, 3, 4})
_PHOTOMETRIC_NAMES = {
    0: "grey (white is 0)",
    1: "grey",
    2: "RGB",
    3: "palette",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE L*a*b*",
}
_CHANNELS = {2: 3, 5: 4, 6: 3, 8: 3}
_UNCOMPRESSED = 1
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000})
"""None, CCITT, LZW, JPEG, Deflate, PackBits, LZMA and Zstandard: those that Pillow has."""
_FORMAT_NAMES = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_MAX_SHORT = 65_535
_UNSPECIFIED, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2
_FULL_RANGE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


def check_samples(page: Directory) -> Samples:
    """Return how the samples of a page are to be read.

    Args:
        page: Directory of the page.

    Raises:
        CorruptImage: The page needs a colour map and has none.
        UnsupportedFormat: The samples are of a kind that is not read.
    """
    photometric = find_photometric(page)
    bits = bits_of_samples(page)
    reason = (
        _refuse_kind(page, photometric, bits)
        or _refuse_planes(page, photometric, bits)
        or _refuse_colours(page, photometric)
        or _refuse_range(page, bits)
    )
    if reason:
        raise UnsupportedFormat(
            f"the TIFF image has {reason}, which is not supported. Store it as grey or RGB with 8 "
            "or 16 bits per channel"
        )
    if photometric == _PALETTE and COLOUR_MAP not in page.entries:
        raise CorruptImage(
            "the TIFF image is damaged: its pixels need a colour map, and it has none"
        )
    grey_of_16_bits = len(bits) == 1 and 8 < bits[0] <= 16
    return Samples(
        inverted=grey_of_16_bits and photometric == _WHITE_IS_ZERO,
        significant_bits=_depth_in_use(page, bits) if grey_of_16_bits else 16,
        depth=max(bits),
    )


def find_photometric(page: Directory) -> int:
    """Return the photometric interpretation of a page.

    A file must declare it. If it does not, the colours follow from the number of samples, as in
    libtiff: white is zero in a fax, black is zero in other grey pages, and three samples are RGB.

    Args:
        page: Directory of the page.
    """
    if page.number(_SAMPLES, 1) - len(_declared_extra(page)) >= 3:
        return page.number(PHOTOMETRIC, _RGB)
    fax = page.number(COMPRESSION, _UNCOMPRESSED) in _FAXES
    return page.number(PHOTOMETRIC, _WHITE_IS_ZERO if fax else _BLACK_IS_ZERO)


def describe_samples(page: Directory) -> str:
    """Return the kind of a page's samples in words.

    Args:
        page: Directory of the page.
    """
    photometric = find_photometric(page)
    bits = bits_of_samples(page)
    name = _PHOTOMETRIC_NAMES.get(photometric, f"photometric interpretation {photometric}")
    order = "big" if page.layout.order == ">" else "little"
    return f"{len(bits)} x {max(bits)} bits of {name} per pixel, {order}-endian"


def colour_map_of_8_bits(page: Directory) -> tuple[int, ...]:
    """Return the colour map of a page if its values have 8 bits instead of 16, else nothing.

    Some programs write such maps, which would be black. libtiff recognises them in the same way.

    Args:
        page: Directory of the page.
    """
    if find_photometric(page) != _PALETTE:
        return ()
    colours = tuple(int(value) for value in page.numbers(COLOUR_MAP))
    return colours if colours and max(colours) < 256 else ()


def bits_of_samples(page: Directory) -> tuple[int, ...]:
    """Return the bits of each sample of a pixel.

    Args:
        page: Directory of the page.
    """
    bits = tuple(int(value) for value in page.numbers(BITS, (1,)))
    count = page.number(_SAMPLES, len(bits))
    return bits * count if len(bits) == 1 and 0 < count <= 16 else bits


def extra_samples(page: Directory) -> tuple[int, ...]:
    """Return TIFF's number of the meaning of each sample beyond the colours.

    A sample that is not declared means nothing, like one that is declared as unspecified. Pillow
    and libtiff take a fourth one for transparency, which gives an empty or a dotted cut-out.

    Args:
        page: Directory of the page.
    """
    colours = _CHANNELS.get(find_photometric(page), 1)
    count = max(0, len(bits_of_samples(page)) - colours)
    declared = _declared_extra(page)[:count]
    return declared + (_UNSPECIFIED,) * (count - len(declared))


def _declared_extra(page: Directory) -> tuple[int, ...]:
    values = page.numbers(EXTRA)
    return tuple(int(v) if 0 <= v <= _MAX_SHORT else _UNSPECIFIED for v in values)


def _refuse_kind(page: Directory, photometric: int, bits: tuple[int, ...]) -> str | None:
    compression = page.number(COMPRESSION, _UNCOMPRESSED)
    formats = {int(value) for value in page.numbers(_FORMAT, (1,))}
    unusual = formats & _FORMAT_NAMES.keys()
    if compression not in _COMPRESSIONS:
        return f"compression {compression}"
    if photometric not in _PHOTOMETRIC_NAMES:
        return f"photometric interpretation {photometric}"
    if unusual:
        # Their black and white are not defined.
        return f"{_FORMAT_NAMES[min(unusual)]} samples of {max(bits)} bits"
    if max(bits) > 16:
        return f"samples of {max(bits)} bits"
    if len(set(bits)) > 1:
        return f"samples of {', '.join(str(value) for value in bits)} bits"
    return None


def _refuse_planes(page: Directory, photometric: int, bits: tuple[int, ...]) -> str | None:
    """Return why samples in planes of their own cannot be read, or None.

    Pillow reads uncompressed planes of 16 bits as if they had 8, and finds no transparency next to
    a grey plane.
    """
    if page.number(PLANAR, 1) != 2 or len(bits) == 1:
        return None
    extra = extra_samples(page)
    uncompressed = page.number(COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED
    without = not extra and photometric in {_RGB, _CMYK}
    with_alpha = photometric == _RGB and extra in {(_ASSOCIATED,), (_UNASSOCIATED,)}
    readable = (without or with_alpha) and max(bits) >= 8
    if uncompressed:
        readable = readable and max(bits) == 8 and extra in {(), (_UNASSOCIATED,)}
    return None if readable else f"{len(bits)} planes of {max(bits)} bits"


def _refuse_colours(page: Directory, photometric: int) -> str | None:
    if photometric == _CMYK and page.number(_INK_SET, 1) != 1:
        return "inks other than CMYK"
    uncompressed = page.number(COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED
    if photometric == _YCBCR and uncompressed and len(bits_of_samples(page)) == 3:
        if page.numbers(_SUBSAMPLING, (2, 2)) != (1, 1):
            return "uncompressed YCbCr with fewer samples of colour than of light"
        if page.numbers(_REFERENCE, _FULL_RANGE) != _FULL_RANGE:
            return "uncompressed YCbCr of a reduced range"
    return None


def _refuse_range(page: Directory, bits: tuple[int, ...]) -> str | None:
    """Return why a declared range cannot be read, or None if the samples use all of their bits."""
    full = 2 ** max(bits) - 1
    lowest, highest = page.numbers(_S_MIN, (0,)), page.numbers(_S_MAX, (full,))
    if max(lowest) > 0 or (min(highest) != full and not _is_depth(min(highest), bits)):
        return f"samples from {max(lowest):g} to {min(highest):g} in {max(bits)} bits"
    if len(bits) > 1 and _depth_in_use(page, bits) < max(bits):
        return f"samples of {_depth_in_use(page, bits)} bits in {max(bits)}"
    return None


def _depth_in_use(page: Directory, bits: tuple[int, ...]) -> int:
    """Return the bits that samples of 16 bits use.

    Cameras and microscopes store 10, 12 or 14 bits in 16. The largest value is statistics, says
    TIFF 6.0, but one of just 1023, 4095 or 16383 is the depth.
    """
    highest = max(*page.numbers(_S_MAX, (0,)), *page.numbers(_MAX_VALUE, (0,)))
    return int(highest).bit_length() if _is_depth(highest, bits) else max(bits)


def _is_depth(highest: float, bits: tuple[int, ...]) -> bool:
    return max(bits) == 16 and highest in {2**depth - 1 for depth in range(9, 16)}
