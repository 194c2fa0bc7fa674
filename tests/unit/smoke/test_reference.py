"""The stored masks, and how far a mask may be from them."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.smoke.reference import WRITE_COMMAND, compare_masks, read_mask, require_stored_mask
from serve_app.config import AppConfig
from serve_app.errors import ModelUnavailable
from serve_app.models.registry import BUNDLED_MODEL, locate_weights

U2NETP_SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"


def bundled_sha256() -> str:
    return locate_weights(BUNDLED_MODEL, AppConfig()).sha256


@pytest.mark.parametrize("name", ["folio", "u2netp"])
def test_the_weights_have_a_stored_mask(name: str) -> None:
    sha256 = bundled_sha256() if name == BUNDLED_MODEL else U2NETP_SHA256
    mask = read_mask(name, sha256)
    assert mask is not None, f"{name} has other weights now: run {WRITE_COMMAND} {name}"
    assert mask.shape == (320, 320)
    assert 0.1 < (mask > 127).mean() < 0.9


def test_other_weights_have_no_stored_mask() -> None:
    assert read_mask(BUNDLED_MODEL, "0" * 64) is None
    assert require_stored_mask(BUNDLED_MODEL, "0" * 64, np.zeros((320, 320), np.uint8)) is None


def test_one_pixel_in_a_thousand_may_differ() -> None:
    stored = np.full((100, 100), 100, np.uint8)
    mask = stored.copy()
    mask[:50] += 1
    mask[0, :10] = 255
    assert compare_masks(mask, stored).passes
    mask[0, 10] = 98
    found = compare_masks(mask, stored)
    assert (found.max_levels, found.same, found.passes) == (155, 0.9989, False)


def test_another_mask_is_refused_with_its_distance() -> None:
    stored = read_mask(BUNDLED_MODEL, bundled_sha256())
    assert stored is not None
    wrong = stored.copy()
    wrong[:32] = 255 - stored[:32]
    with pytest.raises(ModelUnavailable, match=r"^folio: 10\.00% of the pixels .* by up to 255"):
        require_stored_mask(BUNDLED_MODEL, bundled_sha256(), wrong)
