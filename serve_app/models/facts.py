"""Facts about each known model: its input, the meaning of its output, and its licence."""

from __future__ import annotations

from dataclasses import dataclass

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)
_ONE = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The input that a model expects, the meaning of its output, and its licence."""

    size_px: int
    """Side of the square input, in pixels."""
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    """Mean of each channel, on a scale on which the image's brightest value is 1."""
    std: tuple[float, float, float] = _IMAGENET_STD
    """Standard deviation of each channel, on the same scale."""
    sigmoid: bool = False
    """Whether the output is a logit, so that its sigmoid is the mask."""
    empty_below: float = 0.0
    """Lowest maximum of an output that shows a subject.

    It is 0 for rembg's models. rembg stretches every output to the full range, and parity with it
    does not allow to call a mask empty.
    """
    digest: str | None = None
    """Digest of the released file, if there is one: ``md5:`` or ``sha256:`` and hex digits."""
    licence: str = "unknown"
    """Licence of the weights, by its SPDX name if it has one."""
    commercial_use: bool = True
    """Whether the licence allows commercial use without a contract."""


def _u2net(md5: str) -> ModelFacts:
    return ModelFacts(320, digest=f"md5:{md5}", licence="Apache-2.0")


def _birefnet(md5: str | None) -> ModelFacts:
    digest = None if md5 is None else f"md5:{md5}"
    return ModelFacts(1024, sigmoid=True, digest=digest, licence="MIT")


MODEL_FACTS: dict[str, ModelFacts] = {
    "folio": ModelFacts(320, empty_below=0.5, licence="Apache-2.0"),
    "u2net": _u2net("60024c5c889badc19c04ad937298a77b"),
    "u2netp": _u2net("8e83ca70e441ab06c318d82300c84806"),
    "u2net_human_seg": _u2net("c09ddc2e0104f800e3e1bb4652583d1f"),
    "silueta": _u2net("55e59e0d8062d2f5d013f4725ee84782"),
    "isnet-general-use": ModelFacts(
        1024, _HALF, _ONE, digest="md5:fc16ebd8b0c10d971d3513d564d01e29", licence="Apache-2.0"
    ),
    "isnet-anime": ModelFacts(
        1024,
        _IMAGENET_MEAN,
        _ONE,
        digest="md5:6f184e756bb3bd901c8849220a83e38e",
        licence="Apache-2.0",
    ),
    "birefnet-general": _birefnet("7a35a0141cbbc80de11d9c9a28f52697"),
    "birefnet-general-lite": _birefnet("4fab47adc4ff364be1713e97b7e66334"),
    "birefnet-portrait": _birefnet("c3a64a6abf20250d090cd055f12a3b67"),
    "birefnet-dis": _birefnet("2d4d44102b446f33a4ebb2e56c051f2b"),
    "birefnet-hrsod": _birefnet("c017ade5de8a50ff0fd74d790d268dda"),
    "birefnet-cod": _birefnet("f6d0d21ca89d287f17e7afe9f5fd3b45"),
    "birefnet-massive": _birefnet("33e726a2136a3d59eb0fdf613e31e3e9"),
    "bria-rmbg": ModelFacts(
        1024,
        digest="sha256:5b486f08200f513f460da46dd701db5fbb47d79b4be4b708a19444bcd4e79958",
        licence="CC-BY-NC-4.0",
        commercial_use=False,
    ),
}
"""Facts by model name. The session classes of rembg 2.0.86 say the same in code, which a test
compares. rembg compares a digest after a download only, and never that of a file that it finds."""

CUSTOM_MODEL_FACTS = ModelFacts(320)
"""Facts of a configured file whose name is not in ``MODEL_FACTS``. They are those of u2net."""

NOT_SERVED = {
    "sam": "SAM needs a point or a box in each image",
    "u2net_cloth_seg": "it gives one mask for each kind of garment, not one mask",
    "u2net_custom": "a file of yours is served by model_files: {NAME: FILE}",
    "dis_custom": "a file of yours is served by model_files: {NAME: FILE}",
    "ben_custom": "a file of yours is served by model_files: {NAME: FILE}",
    "birefnet-general-fp16": "rembg makes it from birefnet-general, which is served",
    "atlascloud": "it sends the images to a service on the network",
    "withoutbg": "it sends the images to a service on the network",
}
"""Sessions of rembg's that are not served, each with the reason."""
