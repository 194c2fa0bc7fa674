"""The memory of every kind of image and every recipe, held to what the pipeline charges for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loadtests.benchmarks.memory import cases
from loadtests.harness.peak_memory import Case, measure_peaks
from serve_app.config import ImageLimits
from serve_app.contracts.recipe import Recipe
from serve_app.imaging.decode import ImageHeader, read_header
from serve_app.imaging.footprint import bytes_needed
from tests.support.images import book, jpeg

WIDTH, HEIGHT = 1600, 1200
_TOLERANCE = 1.1
"""Largest ratio of a peak to its charge. How much memory lies free in between differs by chance."""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is reset by Linux alone")
def test_no_image_takes_more_memory_than_it_is_charged_for(tmp_path: Path) -> None:
    chosen = cases(WIDTH, HEIGHT)
    peaks = measure_peaks(list(chosen.values()), tmp_path)
    shares = {name: peak.measured / peak.charged for name, peak in zip(chosen, peaks, strict=True)}
    assert {name: share for name, share in shares.items() if share > _TOLERANCE} == {}
    # Nor is any charged for far more than it takes, which would let memory lie idle.
    assert {name: share for name, share in shares.items() if share < 0.35} == {}


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is reset by Linux alone")
def test_a_large_image_takes_no_more_than_it_is_charged_for(tmp_path: Path) -> None:
    # Its arrays have more than 32 MiB, which glibc maps one by one.
    recipes: tuple[dict[str, str], ...] = ({}, {"background": "white"})
    chosen = [Case("jpeg", recipe, 5000, 4000) for recipe in recipes]
    shares = [peak.measured / peak.charged for peak in measure_peaks(chosen, tmp_path)]
    assert max(shares) <= _TOLERANCE, shares


def test_charges_follow_the_header_and_the_recipe() -> None:
    photograph = jpeg(book().image)
    header = read_header(photograph, ImageLimits())
    assert not header.has_alpha
    charge = bytes_needed(header, Recipe(), len(photograph))
    assert charge > bytes_needed(header, Recipe(background="white"), len(photograph))
    assert charge < bytes_needed(header, Recipe(format="webp"), len(photograph))
    assert charge < bytes_needed(header, Recipe(), 10 * len(photograph))
    transparent = ImageHeader("PNG", header.width, header.height, has_alpha=True)
    assert charge < bytes_needed(transparent, Recipe(), len(photograph))


def test_the_plan_of_a_run_counts_the_charge_of_a_usual_image() -> None:
    from ingest.scaling.capacity_plan import BYTES_PER_PIXEL

    pixels = 1600 * 1200
    charge = bytes_needed(ImageHeader("JPEG", 1600, 1200, has_alpha=False), Recipe(), 700_000)
    assert charge / pixels <= BYTES_PER_PIXEL < 1.3 * charge / pixels
