"""Real cut-outs, and drawn subjects, over real photographs.

Only few cut-outs with true masks are free. Each is therefore scaled, turned, stretched, coloured
and placed at random over a random part of a photograph. Some samples have a second subject, a
shadow, or things out of focus that are not the subject. Colours are premultiplied by their alpha
until the end, so that the colours of transparent pixels never show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from serve_app.models.folio.synthetic.photograph import (
    Kind,
    add_shadow,
    paint_subject,
    take_with_camera,
)
from serve_app.models.folio.synthetic.surfaces import Pixels, blend, blur, surface

_CUT_OUT_PX = 360
"""Longest side to which a cut-out is reduced when it is read."""
_BACKGROUND_PX = 640
"""Shortest side to which a photograph is reduced when it is read."""
_SMALLEST_SHARE = 0.015
"""Smallest share of a sample that its subject covers, as in a drawn photograph."""
_ATTEMPTS = 20

_SURFACE_SHARE = 0.12
"""Share of the samples on a drawn surface instead of a photograph."""
_DRAWN_SHARE = 0.2
"""Share of the samples whose subject is a drawn book or object."""
_SECOND_SHARE = 0.12
"""Share of the samples with two cut-outs, which are both in the mask."""
_BYSTANDER_SHARE = 0.15
"""Share of the samples with things out of focus in the scene, which are not in the mask."""


@dataclass(frozen=True, slots=True)
class CutOut:
    """A subject without its background, as small as its visible part."""

    pixels: Pixels
    """Colours premultiplied by the alpha, uint8 [H, W, 3], RGB."""
    alpha: Pixels
    """Alpha, uint8 [H, W]."""


def load_cut_outs(folders: Sequence[Path]) -> list[CutOut]:
    """Return the cut-outs of folders: their PNG files with an alpha channel, in order of name.

    Args:
        folders: Folders of 8-bit RGBA files. Their subfolders are not read.

    Raises:
        ValueError: A file is not an RGBA image, or is transparent everywhere, or there is no file.
    """
    paths = [path for folder in folders for path in sorted(folder.glob("*.png"))]
    if not paths:
        raise ValueError(f"there is no PNG file in {', '.join(map(str, folders))}")
    return [_read_cut_out(path) for path in paths]


def load_backgrounds(folder: Path) -> list[Pixels]:
    """Return the photographs of a folder, uint8 [H, W, 3], RGB, in order of name.

    Args:
        folder: Folder of JPEG and PNG files. Its subfolders are not read. The shorter side of each
            photograph is reduced to 640 pixels.

    Raises:
        ValueError: A file is not an image, or there is no file.
    """
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in {".jpg", ".png"}]
    if not paths:
        raise ValueError(f"there is no photograph in {folder}")
    return [_read_background(path) for path in paths]


def compose(
    rng: np.random.Generator,
    cut_outs: Sequence[CutOut],
    backgrounds: Sequence[Sequence[Pixels]],
    side_px: int,
) -> tuple[Pixels, Pixels]:
    """Return a random sample: an image, uint8 [S, S, 3], RGB, and its true mask, uint8 [S, S].

    Args:
        rng: Random number generator.
        cut_outs: Cut-outs to choose from.
        backgrounds: Groups of photographs. Each group has the same share of the samples.
        side_px: Side of the sample in pixels, S.
    """
    # The application squashes every image to a square, its subject and background alike.
    squash = float(np.exp(np.clip(rng.normal(0, 0.2), -0.5, 0.5)))
    scene = _scene(rng, backgrounds, side_px, squash)
    if rng.random() < _BYSTANDER_SHARE:
        scene = _add_bystanders(rng, scene, cut_outs, squash)
    subject, alpha = _subject(rng, cut_outs, side_px, squash)
    if rng.random() < 0.6:
        scene = add_shadow(rng, scene, alpha)
    image = over(scene, subject, alpha)
    if rng.random() < 0.7:
        image = take_with_camera(rng, image)
    return image, alpha


def over(scene: Pixels, premultiplied: Pixels, alpha: Pixels) -> Pixels:
    """Return premultiplied colours over a scene.

    Args:
        scene: Pixels behind, uint8 [H, W, 3].
        premultiplied: Colours multiplied by their alpha, uint8 [H, W, 3].
        alpha: Alpha of these colours, uint8 [H, W].
    """
    rest = cv2.bitwise_not(alpha)
    behind = cv2.multiply(scene, cv2.merge([rest, rest, rest]), scale=1 / 255)
    return np.asarray(cv2.add(behind, premultiplied), np.uint8)


def _read_cut_out(path: Path) -> CutOut:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4:
        raise ValueError(f"{path} is not an 8-bit RGBA image")
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(image[..., 3]))
    if not width:
        raise ValueError(f"{path} is transparent everywhere")
    visible = np.asarray(image[top : top + height, left : left + width], np.float32)
    opacity = visible[..., 3:] / np.float32(255)
    premultiplied = np.concatenate([visible[..., :3] * opacity, visible[..., 3:]], axis=2)
    share = min(1.0, _CUT_OUT_PX / max(width, height))
    size = max(1, round(width * share)), max(1, round(height * share))
    small = np.rint(cv2.resize(premultiplied, size, interpolation=cv2.INTER_AREA)).astype(np.uint8)
    return CutOut(np.ascontiguousarray(small[..., 2::-1]), np.ascontiguousarray(small[..., 3]))


def _read_background(path: Path) -> Pixels:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"{path} is not an image")
    share = min(1.0, _BACKGROUND_PX / min(image.shape[:2]))
    size = round(image.shape[1] * share), round(image.shape[0] * share)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)


def _choose(rng: np.random.Generator, cut_outs: Sequence[CutOut]) -> CutOut:
    return cut_outs[int(rng.integers(len(cut_outs)))]


def _scene(
    rng: np.random.Generator, backgrounds: Sequence[Sequence[Pixels]], side_px: int, squash: float
) -> Pixels:
    """Return a random part of a photograph or a drawn surface, uint8 [S, S, 3]."""
    if rng.random() < _SURFACE_SHARE:
        return surface(rng, side_px, side_px)
    group = backgrounds[int(rng.integers(len(backgrounds)))]
    scene = crop_background(rng, group[int(rng.integers(len(group)))], side_px, squash)
    if rng.random() < 0.4:
        scene = blur(scene, rng.uniform(0.4, 4) * side_px / 320)
    return _recolour(rng, scene, 0.25)


def crop_background(
    rng: np.random.Generator, photograph: Pixels, side_px: int, squash: float = 1.0
) -> Pixels:
    """Return a random part of a photograph, uint8 [H, W, 3], as a square, uint8 [S, S, 3].

    Args:
        rng: Random number generator.
        photograph: Photograph of any size.
        side_px: Side of the square in pixels, S.
        squash: Height of the part relative to its width.
    """
    height, width = photograph.shape[:2]
    tallest = min(height, width * squash) * rng.uniform(0.35, 1)
    tall, wide = max(1, int(tallest)), max(1, int(tallest / squash))
    top, left = int(rng.uniform(0, height - tall)), int(rng.uniform(0, width - wide))
    part = photograph[top : top + tall, left : left + wide]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    if rng.random() < 0.08:
        part = np.rot90(part, int(rng.integers(1, 4)))
    method = cv2.INTER_AREA if tall > side_px else cv2.INTER_LINEAR
    sized = cv2.resize(np.ascontiguousarray(part), (side_px, side_px), interpolation=method)
    return np.asarray(sized, np.uint8)


def _subject(
    rng: np.random.Generator, cut_outs: Sequence[CutOut], side_px: int, squash: float
) -> tuple[Pixels, Pixels]:
    """Return premultiplied colours, uint8 [S, S, 3], and the alpha, uint8 [S, S], of a subject."""
    if rng.random() < _DRAWN_SHARE:
        kind: Kind = "book" if rng.random() < 0.6 else "object"
        layer, _ = paint_subject(rng, kind, side_px, side_px)
        return blend(np.zeros_like(layer.pixels), layer.pixels, layer.alpha), layer.alpha
    for _ in range(_ATTEMPTS):
        pixels, alpha = _place(rng, _choose(rng, cut_outs), side_px, rng.uniform(0.35, 1), squash)
        if rng.random() < _SECOND_SHARE:
            size = rng.uniform(0.3, 0.6)
            second, its_alpha = _place(rng, _choose(rng, cut_outs), side_px, size, squash)
            pixels = over(pixels, second, its_alpha)
            rest = cv2.multiply(alpha, cv2.bitwise_not(its_alpha), scale=1 / 255)
            alpha = np.asarray(cv2.add(rest, its_alpha), np.uint8)
        if alpha.mean() >= _SMALLEST_SHARE * 255:
            break
    return pixels, alpha


def _place(
    rng: np.random.Generator, cut_out: CutOut, side_px: int, share: float, squash: float
) -> tuple[Pixels, Pixels]:
    """Return a cut-out, varied and placed at random on an empty square.

    Args:
        rng: Random number generator.
        cut_out: Cut-out to place.
        side_px: Side of the square in pixels, S.
        share: Longest side of the cut-out, relative to the square.
        squash: Height, relative to the width, of the part of the image that becomes a square.

    Returns:
        Premultiplied colours, uint8 [S, S, 3], and the alpha, uint8 [S, S].
    """
    height, width = cut_out.alpha.shape
    scale = share * side_px / max(height, width)
    stretch = float(np.exp(np.clip(rng.normal(0, 0.1), -0.25, 0.25)))
    size = max(2, round(width * scale * stretch)), max(2, round(height * scale / stretch))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    pixels = cv2.resize(_recolour(rng, cut_out.pixels, 0.2), size, interpolation=method)
    alpha = cv2.resize(cut_out.alpha, size, interpolation=method)
    turn = rng.normal(0, 0.15) if rng.random() < 0.8 else rng.uniform(-np.pi, np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    mirror = -1 if rng.random() < 0.5 else 1
    square = np.diag([squash**0.5, squash**-0.5])
    linear = square @ np.array([[cos, -sin], [sin, cos]]) @ np.diag([mirror, 1])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * np.array(size) / 2
    reach = np.abs(corners @ linear.T).max(0)
    fitting = min(1.0, 1.05 * float((side_px / 2 / reach).min()))
    linear, reach = linear * fitting, reach * fitting
    free = np.maximum(0, side_px - 2 * reach)
    centre = side_px / 2 + np.clip(rng.normal(0, 0.5, 2), -1, 1) * free / 2
    if rng.random() < 0.12:
        # A subject that leaves the image.
        centre += rng.normal(0, 0.15, 2) * side_px
    shift = centre - linear @ (np.array(size) / 2)
    matrix = np.concatenate([linear, shift[:, None]], 1).astype(np.float32)
    placed = cv2.warpAffine(pixels, matrix, (side_px, side_px))
    its_alpha = cv2.warpAffine(alpha, matrix, (side_px, side_px))
    if rng.random() < 0.3:
        softness = rng.uniform(0.3, 0.9) * side_px / 320
        placed = cv2.GaussianBlur(placed, (0, 0), softness)
        its_alpha = cv2.GaussianBlur(its_alpha, (0, 0), softness)
    return np.asarray(placed, np.uint8), np.asarray(its_alpha, np.uint8)


def _recolour(rng: np.random.Generator, pixels: Pixels, spread: float) -> Pixels:
    """Return pixels with other gains of their channels, so that black remains black."""
    if rng.random() < 0.4:
        return pixels
    gains = np.exp(rng.normal(0, spread) + rng.normal(0, spread / 3, 3))
    return np.asarray(cv2.transform(pixels, np.diag(gains)), np.uint8)


def _add_bystanders(
    rng: np.random.Generator, scene: Pixels, cut_outs: Sequence[CutOut], squash: float
) -> Pixels:
    """Return a scene with one or two small things in it that are out of focus."""
    side_px = scene.shape[0]
    for _ in range(int(rng.integers(1, 3))):
        size = rng.uniform(0.12, 0.3)
        pixels, alpha = _place(rng, _choose(rng, cut_outs), side_px, size, squash)
        shift = rng.uniform(-0.4, 0.4, 2) * side_px
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
        softness = rng.uniform(2.5, 6) * side_px / 320
        moved = (
            np.asarray(cv2.warpAffine(each, matrix, (side_px, side_px)), np.uint8)
            for each in (pixels, alpha)
        )
        scene = over(scene, *(blur(each, softness) for each in moved))
    return scene
