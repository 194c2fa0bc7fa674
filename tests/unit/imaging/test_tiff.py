"""TIFF: every kind of samples is honoured or refused in words, and previews are not the image."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from serve_app.config import ImageLimits
from serve_app.errors import CorruptImage, UnsupportedFormat
from serve_app.imaging.decode import DecodedImage, decode_image, read_header
from tests.support.image_files import Tags, pixel_tags, samples, tiff_file

WIDTH, HEIGHT = 40, 30
RAMP = np.linspace(0, 1, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
COLOURS = np.stack([RAMP, 1 - RAMP, RAMP / 2], axis=-1)


def decoded(data: bytes) -> DecodedImage:
    return decode_image(data, ImageLimits())


def tags(bits: int, channels: int, photometric: int, **more: int) -> Tags:
    return pixel_tags(WIDTH, HEIGHT, bits, channels, photometric, **more)


def assert_ramp(image: DecodedImage, tolerance: float = 1) -> None:
    expected = np.floor(RAMP * 255)
    assert np.abs(image.rgb.astype(float) - expected[..., None]).max() <= tolerance


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (16, "u2")])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_polarity(bits: int, dtype: str, white_is_zero: bool, compressed: bool) -> None:
    values = np.round((1 - RAMP if white_is_zero else RAMP) * (2**bits - 1))
    strip = samples(values, dtype)
    more = {"t259": 8} if compressed else {}
    strip = zlib.compress(strip) if compressed else strip
    assert_ramp(decoded(tiff_file(tags(bits, 1, int(not white_is_zero), **more), [strip])))


def test_the_polarity_of_big_endian_samples_is_honoured_or_refused() -> None:
    big = tiff_file(tags(16, 1, 0), [samples((1 - RAMP) * 65535, "u2", ">")], ">")
    with pytest.raises(UnsupportedFormat, match=r"16 bits of grey \(white is 0\)"):
        decoded(big)
    assert_ramp(decoded(tiff_file(tags(16, 1, 1), [samples(RAMP * 65535, "u2", ">")], ">")))


def test_a_page_that_declares_no_colours_is_no_negative() -> None:
    grey, rgb = tags(8, 1, 1), tags(8, 3, 2)
    del grey[262], rgb[262]
    for order in "<>":
        assert_ramp(decoded(tiff_file(grey, [samples(RAMP * 255, "u1")], order)))
    found = decoded(tiff_file(rgb, [samples(COLOURS * 255, "u1")])).rgb
    assert np.abs(found - COLOURS * 255).max() <= 1


@pytest.mark.parametrize("depth", [10, 12, 14])
def test_a_declared_depth_is_not_black(depth: int) -> None:
    strip = samples(RAMP * (2**depth - 1), "u2")
    assert_ramp(decoded(tiff_file(tags(16, 1, 1, t281=2**depth - 1), [strip])))
    # Any other largest value is statistics.
    dark = decoded(tiff_file(tags(16, 1, 1, t281=3000), [strip]))
    assert dark.rgb.max() == (2**depth - 1) >> 8
    rgb = tiff_file(tags(16, 3, 2, t281=2**depth - 1), [strip * 3])
    with pytest.raises(UnsupportedFormat, match=f"{depth} bits in 16"):
        decoded(rgb)


def test_packed_samples_of_12_bits() -> None:
    pairs = np.round(RAMP * 4095).astype(np.uint32).reshape(-1, 2)
    packed = (pairs[:, 0] << 12) | pairs[:, 1]
    strip = np.stack([packed >> 16, (packed >> 8) & 255, packed & 255], -1).astype(np.uint8)
    assert_ramp(decoded(tiff_file(tags(12, 1, 1), [strip.tobytes()])))


@pytest.mark.parametrize(
    ("dtype", "sample_format", "words"),
    [
        ("i1", 2, "signed samples of 8 bits"),
        ("i2", 2, "signed samples of 16 bits"),
        ("f2", 3, "floating-point samples of 16 bits"),
        ("f4", 3, "floating-point samples of 32 bits"),
        ("f8", 3, "floating-point samples of 64 bits"),
        ("u4", 1, "samples of 32 bits"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_samples_without_a_white_are_refused_in_words(
    dtype: str, sample_format: int, words: str, order: str
) -> None:
    values = np.where(RAMP > 0.9, np.nan, RAMP) if dtype[0] == "f" else RAMP * 100
    bits = 8 * int(dtype[1:])
    strip = samples(values, dtype, order)
    with pytest.raises(UnsupportedFormat, match=words):
        decoded(tiff_file(tags(bits, 1, 1, t339=sample_format), [strip], order))


def test_planes() -> None:
    planes = [samples(COLOURS[..., n] * 255, "u1") for n in range(3)]
    image = decoded(tiff_file(tags(8, 3, 2, t284=2), planes))
    assert np.abs(image.rgb - COLOURS * 255).max() <= 1
    wide = [samples(COLOURS[..., n] * 65535, "u2") for n in range(3)]
    with pytest.raises(UnsupportedFormat, match="3 planes of 16 bits"):
        decoded(tiff_file(tags(16, 3, 2, t284=2), wide))
    compressed = [zlib.compress(plane) for plane in wide]
    image = decoded(tiff_file(tags(16, 3, 2, t284=2, t259=8), compressed))
    assert np.abs(image.rgb - COLOURS * 255).max() <= 1
    # Pillow finds an empty transparency here, which would give an empty cut-out.
    grey = [zlib.compress(samples(RAMP * 255, "u1"))] * 2
    with pytest.raises(UnsupportedFormat, match="2 planes of 8 bits"):
        decoded(tiff_file(tags(8, 2, 1, t284=2, t259=8, t338=2), grey))


@pytest.mark.parametrize("channels", [1, 3])
def test_associated_transparency_is_divided_out(channels: int) -> None:
    alpha = np.clip(RAMP * 2, 0.2, 1)[..., None]
    colours = COLOURS if channels == 3 else RAMP[..., None]
    stored = np.concatenate([colours * alpha, alpha], axis=-1)
    photometric = 2 if channels == 3 else 1
    file = tiff_file(tags(8, channels + 1, photometric, t338=1), [samples(stored * 255, "u1")])
    image = decoded(file)
    assert image.alpha is not None
    assert np.abs(image.alpha - alpha[..., 0] * 255).max() <= 1
    # 8 bits of a fifth of a colour are off by up to 5 levels.
    assert np.abs(image.rgb - colours * 255).max() <= 6


def test_a_colour_map_of_8_bits_is_not_black() -> None:
    grey = list(range(256)) * 3
    indices = samples(np.floor(RAMP * 255), "u1")
    for order in "<>":
        strip = tags(8, 1, 3) | {320: (3, grey)}
        assert_ramp(decoded(tiff_file(strip, [indices], order)))
    assert_ramp(decoded(tiff_file(tags(8, 1, 3) | {320: (3, [v * 257 for v in grey])}, [indices])))
    with pytest.raises(CorruptImage, match="colour map"):
        decoded(tiff_file(tags(8, 1, 3), [indices]))


def test_ycbcr() -> None:
    rgb = np.round(COLOURS * 255).astype(np.uint8)
    strip = np.asarray(Image.fromarray(rgb).convert("YCbCr")).tobytes()
    full = tags(8, 3, 6) | {530: (3, [1, 1])}
    assert np.abs(decoded(tiff_file(full, [strip])).rgb.astype(int) - rgb).max() <= 3
    with pytest.raises(UnsupportedFormat, match="fewer samples of colour"):
        decoded(tiff_file(tags(8, 3, 6), [strip]))
    video = full | {532: (5, [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1])}
    with pytest.raises(UnsupportedFormat, match="reduced range"):
        decoded(tiff_file(video, [strip]))


def test_lab() -> None:
    red = tiff_file(tags(8, 3, 8), [bytes([136, 81, 70]) * (WIDTH * HEIGHT)])
    assert np.abs(decoded(red).rgb[0, 0].astype(int) - (255, 0, 0)).max() <= 12


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tags(8, 5, 5, t338=2), "5 x 8 bits of CMYK"),
        (tags(8, 4, 5, t332=2), "inks other than CMYK"),
        (tags(8, 1, 1, t259=34887), "compression 34887"),
        (tags(8, 3, 32844), "photometric interpretation 32844"),
        (tags(8, 3, 2) | {258: (3, [5, 6, 5])}, "samples of 5, 6, 5 bits"),
        (tags(16, 1, 1) | {341: (3, [700])}, "from 0 to 700"),
    ],
    ids=["cmyka", "inks", "lerc", "logluv", "565", "range"],
)
def test_a_sound_file_of_an_unsupported_kind_is_not_called_damaged(kind: Tags, words: str) -> None:
    with pytest.raises(UnsupportedFormat, match=words) as caught:
        decoded(tiff_file(kind, [bytes(WIDTH * HEIGHT * 5)]))
    assert "damaged" not in caught.value.message


PREVIEW = pixel_tags(8, 6, 8, 3, 2, t254=1)
STRIP = samples(COLOURS * 255, "u1")


def test_a_preview_before_the_photograph_is_passed_over() -> None:
    for preview in (PREVIEW, pixel_tags(8, 6, 8, 3, 2, t255=2), pixel_tags(8, 6, 1, 1, 4, t254=4)):
        data = tiff_file(preview, [STRIP], further=[tags(8, 3, 2)])
        assert np.abs(decoded(data).rgb - COLOURS * 255).max() <= 1
        assert read_header(data, ImageLimits()).pixels == WIDTH * HEIGHT


@pytest.mark.parametrize(("of_preview", "of_page"), [(1, 6), (6, 1)])
def test_the_orientation_is_that_of_the_page_and_not_of_a_preview(
    of_preview: int, of_page: int
) -> None:
    first = PREVIEW | {274: (3, [of_preview])}
    data = tiff_file(first, [STRIP], further=[tags(8, 3, 2) | {274: (3, [of_page])}])
    image = decoded(data)
    upright = (WIDTH, HEIGHT) if of_page == 1 else (HEIGHT, WIDTH)
    assert (image.width, image.height) == upright


@pytest.mark.parametrize(
    ("first", "sub"),
    [
        (PREVIEW | {50706: (1, [1, 4, 0, 0])}, None),
        (PREVIEW, None),
        (PREVIEW, pixel_tags(4000, 3000, 16, 1, 32803)),
        (PREVIEW, pixel_tags(4000, 3000, 8, 3, 2)),
        (pixel_tags(8, 6, 8, 3, 2), pixel_tags(4000, 3000, 8, 3, 2)),
        (tags(16, 1, 32803), None),
        (tags(16, 3, 34892), None),
    ],
    ids=["dng", "preview-alone", "nef", "preview-and-sub", "sub", "cfa", "linear-raw"],
)
def test_a_preview_alone_is_refused(first: Tags, sub: Tags | None) -> None:
    if sub is not None:
        first = first | {330: (4, [-1])}
    data = tiff_file(first, [STRIP], further=[] if sub is None else [sub])
    for read in (read_header, decode_image):
        with pytest.raises(UnsupportedFormat, match=r"camera|full size"):
            read(data, ImageLimits())


def test_the_reduced_pages_of_a_pyramid_do_not_matter() -> None:
    data = tiff_file(tags(8, 3, 2), [STRIP], further=[PREVIEW, PREVIEW])
    assert np.abs(decoded(data).rgb - COLOURS * 255).max() <= 1


def test_metadata_of_a_tiff_does_not_refuse_its_pixels() -> None:
    broken: Tags = {
        700: (7, list(b"<x:xmpmeta" * 40)),
        34665: (4, [2**31]),
        34853: (4, [12]),
        33723: (4, [7] * 300),
        34377: (1, [56, 66, 73, 77] * 5),
        34675: (7, list(b"no profile at all")),
        42112: (2, list(b"<metadata>")),
    }
    data = tiff_file(tags(8, 3, 2) | broken, [STRIP])
    assert np.abs(decoded(data).rgb - COLOURS * 255).max() <= 1


@pytest.mark.parametrize("kept", [4, 8, 100, 3000])
def test_a_cut_tiff_is_damaged(kept: int) -> None:
    file = io.BytesIO()
    Image.fromarray(np.round(COLOURS * 255).astype(np.uint8)).save(file, "TIFF")
    with pytest.raises((CorruptImage, UnsupportedFormat)) as caught:
        decoded(file.getvalue()[:kept])
    assert caught.value.code == ("unsupported_format" if kept < 8 else "corrupt_image")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("declared", [None, 0])
def test_a_channel_that_is_not_declared_as_transparency_is_none(
    declared: int | None, bits: int, compressed: bool
) -> None:
    """The specification calls such data unspecified (TIFF 6.0, section 18)."""
    highest = 2**bits - 1
    rgb = np.concatenate([COLOURS, np.zeros((HEIGHT, WIDTH, 1))], axis=-1)
    kinds = [(rgb, 2, COLOURS)]
    if bits == 8:
        kinds.append((np.stack([RAMP, 1 - RAMP], axis=-1), 1, RAMP[..., None].repeat(3, -1)))
    for values, photometric, expected in kinds:
        more = {"t259": 8} if compressed else {}
        kind = tags(bits, values.shape[-1], photometric, **more)
        if declared is not None:
            kind[338] = (3, [declared])
        strip = samples(np.floor(values * highest), f"u{bits // 8}")
        image = decoded(tiff_file(kind, [zlib.compress(strip) if compressed else strip]))
        assert image.alpha is None
        assert np.abs(image.rgb - expected * 255).max() <= 1


@pytest.mark.parametrize("declared", [[], [0], [0, 0, 0], [2], [2, 0], [1, 0, 0]])
@pytest.mark.parametrize("order", ["<", ">"])
def test_more_channels_than_four(declared: list[int], order: str) -> None:
    values = np.full((HEIGHT, WIDTH, 6), 128.0)
    values[..., :3] = np.floor(COLOURS * 128)
    kind = tags(8, 6, 2) | ({338: (3, declared)} if declared else {})
    image = decoded(tiff_file(kind, [samples(values, "u1")], order))
    assert (image.alpha is not None) == (declared[:1] in ([1], [2]))
    expected = COLOURS * (255 if declared[:1] == [1] else 128)
    assert np.abs(image.rgb - expected).max() <= 3
    # A declaration without a channel, and one that is no number of TIFF's.
    strip = samples(COLOURS * 255, "u1")
    for type_and_values in ((3, [2]), (4, [70_000]), (12, [0, 0])):
        spare = decoded(tiff_file(tags(8, 3, 2) | {338: type_and_values}, [strip], order))
        assert np.abs(spare.rgb - COLOURS * 255).max() <= 1
    seven = tags(8, 7, 2) | {338: (3, [0] * 4)}
    with pytest.raises(UnsupportedFormat, match="7 x 8 bits of RGB"):
        decoded(tiff_file(seven, [bytes(WIDTH * HEIGHT * 7)], order))


def test_planes_of_more_channels_are_refused_in_words() -> None:
    for compression in (1, 8):
        strip = samples(RAMP * 255, "u1")
        strips = [zlib.compress(strip) if compression == 8 else strip] * 4
        with pytest.raises(UnsupportedFormat, match="4 planes of 8 bits"):
            decoded(tiff_file(tags(8, 4, 2, t284=2, t259=compression), strips))


def big_tiff(tags: Tags, strips: list[bytes], order: str) -> bytes:
    """Return a BigTIFF file (AWare Systems, 2007) whose directory is before its strips."""
    letters = {3: "H", 4: "I", 16: "Q"}
    full = tags | {273: (16, [0] * len(strips)), 279: (16, [len(strip) for strip in strips])}
    outside_at = 16 + 8 + 20 * len(full) + 8
    first = outside_at + 8 * sum(len(values) for _, values in full.values())
    full[273] = (16, list(itertools.accumulate(map(len, strips[:-1]), initial=first)))
    table, outside = b"", b""
    for tag in sorted(full):
        kind, values = full[tag]
        raw = struct.pack(f"{order}{len(values)}{letters[kind]}", *values)
        table += struct.pack(order + "HHQ", tag, kind, len(values))
        if len(raw) > 8:
            table += struct.pack(order + "Q", outside_at + len(outside))
            outside += raw
        else:
            table += raw.ljust(8, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    directory = struct.pack(order + "Q", len(full)) + table + bytes(8)
    return (head + directory + outside).ljust(first, b"\0") + b"".join(strips)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("rows", [HEIGHT, 7])
def test_a_big_tiff_of_either_order_of_bytes(order: str, compressed: bool, rows: int) -> None:
    values = np.floor(COLOURS * 255)
    strips = [samples(values[at : at + rows], "u1") for at in range(0, HEIGHT, rows)]
    strips = [zlib.compress(strip) for strip in strips] if compressed else strips
    kind = tags(8, 3, 2) | {259: (3, [8 if compressed else 1]), 278: (16, [rows])}
    data = big_tiff(kind, strips, order)
    assert np.array_equal(decoded(data).rgb, values)
    assert read_header(data, ImageLimits()).pixels == WIDTH * HEIGHT
    for missing in (1, 40, len(strips[-1])):
        with pytest.raises(CorruptImage, match="cut off"):
            decoded(data[:-missing])
    wide = samples(COLOURS * 65535, "u2", order)
    wide_file = big_tiff(tags(16, 3, 2), [wide], order)
    assert np.abs(decoded(wide_file).rgb - COLOURS * 255).max() <= 1
