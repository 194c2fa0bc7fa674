"""Colours: sRGB from whatever the file says that its numbers mean.

A profile is judged by what it does: if it changes no colour of a lattice, it is sRGB. In a
PNG, cICP comes before iCCP, sRGB, and gAMA with cHRM (PNG, third edition, section 4.3). gAMA alone
has the primaries of sRGB unless it is the usual 1 / 2.2, and cHRM alone means nothing, as in
Chromium 156.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageCms

from serve_app.error_text import visible
from serve_app.errors import UnsupportedFormat
from serve_app.imaging.bounds.profile import bound_profile
from serve_app.imaging.formats.container import CodePoints, Container, PngGamma
from serve_app.imaging.icc import SRGB_CHROMATICITIES, SRGB_CURVE, Chromaticities, build_profile
from serve_app.imaging.pixels import Pixels
from serve_app.imaging.wide import WidePixels, read_shaper

_logger = logging.getLogger(__name__)

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
ReadWide: TypeAlias = Callable[[], WidePixels | None]
_LATTICE_STEPS = 9
_GREYS = np.arange(256, dtype=np.uint8)[None]
_MAX_DIFFERENCE = 1
"""Largest difference of a colour, in grey levels, at which a profile does nothing. The profiles of
sRGB that are in use differ from each other by that."""
_CACHED_PROFILE_BYTES = 64 * 1024
_DISPLAY_GAMMA = 2.2
_INSIGNIFICANT = 0.05
"""Deviation of an exponent from 1 that libpng ignores (PNG_GAMMA_THRESHOLD)."""

_D65 = (0.3127, 0.329)
_PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB_CHROMATICITIES,
    2: SRGB_CHROMATICITIES,
    4: (0.31, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
"""White and primaries by their number in ITU-T H.273, table 2. 2 is unspecified."""
_CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 2, 6, 13, 14, 15), SRGB_CURVE),
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
}
"""Curves by their number in ITU-T H.273, table 3. Those of BT.709 and BT.2020 describe a camera. An
image with one is shown like sRGB."""


def convert_to_srgb(image: Image.Image, container: Container, read_wide: ReadWide) -> Image.Image:
    """Return an image in sRGB, of mode RGB.

    Args:
        image: Image of mode L, RGB, CMYK, YCbCr or LAB.
        container: What its file says of its colours.
        read_wide: Returns the same samples with 16 bits, or None. If they are used, the image is
            closed.

    Raises:
        UnsupportedFormat: The colours are of a high dynamic range.
    """
    if image.mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        to_srgb = ImageCms.buildTransform(lab, _SRGB, "LAB", "RGB")
        return ImageCms.applyTransform(image, to_srgb) or image
    profile = declared_profile(container)
    if profile:
        image = _apply_profile(image, profile, read_wide)
    return image if image.mode == "RGB" else image.convert("RGB")


def is_srgb(container: Container) -> bool:
    """Return whether the colours of an image of mode RGB with 8 bits are sRGB as they are.

    Args:
        container: What its file says of its colours.

    Raises:
        UnsupportedFormat: The colours are of a high dynamic range.
    """
    profile = declared_profile(container)
    if not profile:
        return True
    return len(profile) <= _CACHED_PROFILE_BYTES and _cached_transform(profile, "RGB") is None


def declared_profile(container: Container) -> bytes | None:
    """Return the ICC profile of an image, or one that does what its file says otherwise.

    Args:
        container: What the file says of its colours.

    Raises:
        UnsupportedFormat: The colours are of a high dynamic range.
    """
    # In AVIF and HEIF the numbers say how the colours were coded, and the profile what they are.
    numbers_count = container.format == "PNG" or not container.icc_profile
    if container.code_points and numbers_count:
        by_number = _by_number(container.code_points)
        if by_number:
            return by_number
    if container.icc_profile or not container.gamma:
        return container.icc_profile
    return _by_gamma(container.gamma)


def _by_gamma(gamma: PngGamma) -> bytes | None:
    usual = abs(1 / (gamma.exponent * _DISPLAY_GAMMA) - 1) < _INSIGNIFICANT
    if usual and not gamma.chromaticities:
        return None
    exponent = min(max(1 / gamma.exponent, 0.01), 100.0)
    return build_profile("gAMA", gamma.chromaticities or SRGB_CHROMATICITIES, (exponent,))


@lru_cache(maxsize=32)
def _by_number(points: CodePoints) -> bytes | None:
    if points.transfer in {16, 18}:
        raise UnsupportedFormat(
            "the image has a high dynamic range (PQ or HLG), which is not supported. Store it in "
            "sRGB or Display P3"
        )
    primaries, curve = _PRIMARIES.get(points.primaries), _CURVES.get(points.transfer)
    return build_profile("numbered", primaries, curve) if primaries and curve else None


def _apply_profile(image: Image.Image, profile: bytes, read_wide: ReadWide) -> Image.Image:
    space = profile[16:20]
    # An RGB profile describes the grey axis too, which is how browsers read it.
    if space == b"RGB " and image.mode in {"L", "YCbCr"}:
        image = image.convert("RGB")
    transform = (
        _cached_transform(profile, image.mode)
        if len(profile) <= _CACHED_PROFILE_BYTES
        else _transform_to_srgb(profile, image.mode)
    )
    if transform is None:
        return image
    exact = _convert_wide(image, profile, read_wide)
    if exact is not None:
        return Image.fromarray(exact)
    if image.mode == "L":
        table = np.asarray(ImageCms.applyTransform(Image.fromarray(_GREYS), transform))[0]
        return Image.fromarray(table[np.asarray(image)])
    return ImageCms.applyTransform(image, transform) or image


def _convert_wide(image: Image.Image, profile: bytes, read_wide: ReadWide) -> Pixels | None:
    """Return the sRGB of samples of 16 bits, or None if there are none or it is left to LittleCMS.

    The image is closed if it is no longer needed.
    """
    shaper = read_shaper(profile)
    if shaper is None or (len(shaper.curves) == 1 and image.mode != "L"):
        return None
    wide = read_wide()
    if wide is None:
        return None
    image.close()
    return shaper.convert(wide)


def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform to sRGB, or None if there is none or if it does nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(bound_profile(profile)))
        # LittleCMS interpolates grey from so few points that shadows are off by ten levels.
        flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
        transform = ImageCms.buildTransform(source, _SRGB, mode, "RGB", flags=flags)
        return None if _does_nothing(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        # A profile that is broken, or made for another colour mode, describes nothing.
        _logger.info("ignoring the ICC profile, which cannot be applied: %s", visible(str(error)))
        return None


_cached_transform = lru_cache(maxsize=16)(_transform_to_srgb)


def _does_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode not in {"L", "RGB"}:
        return False
    if mode == "L":
        lattice = _GREYS
    else:
        levels = np.linspace(0, 255, _LATTICE_STEPS).astype(np.uint8)
        lattice = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    colours = Image.fromarray(lattice)
    changed = np.asarray(ImageCms.applyTransform(colours, transform)).astype(int)
    return bool(np.abs(changed - np.asarray(colours.convert("RGB"))).max() <= _MAX_DIFFERENCE)
