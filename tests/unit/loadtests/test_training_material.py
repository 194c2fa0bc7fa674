"""What folio is trained on of the set of real cut-outs, with packages of one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtests.quality.packages import Package
from loadtests.quality.split import part_of
from loadtests.quality.subjects import BACKGROUNDS, STAMPS_FOLDER, STAMPS_PACKAGE, SUBJECTS
from loadtests.quality.training_material import SMALL_SUBJECTS, write_stamps, write_wallpapers


@pytest.fixture
def packages(tmp_path: Path) -> list[Package]:
    """Return packages with every listed file."""
    names = {STAMPS_PACKAGE, *(each.package for each in BACKGROUNDS)}
    paths = [
        path for kinds in (SUBJECTS, SMALL_SUBJECTS) for group in kinds.values() for path in group
    ]
    files = [(STAMPS_PACKAGE, f"{STAMPS_FOLDER}/{path}") for path in paths]
    files += [(each.package, each.path) for each in BACKGROUNDS]
    image = tmp_path / "image.png"
    Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(image)
    for package, path in set(files):
        file = tmp_path / package / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.hardlink_to(image)
    return [Package(name, "1", "0" * 64, tmp_path / name) for name in names]


def test_no_small_stamp_is_measured_or_of_a_measured_kind() -> None:
    measured = {kind for kind in SUBJECTS if part_of(kind) == "test"}
    assert not measured & SMALL_SUBJECTS.keys()
    listed = {path for paths in SUBJECTS.values() for path in paths}
    small = [path for paths in SMALL_SUBJECTS.values() for path in paths]
    assert len(small) == len(set(small))
    assert not listed & set(small)


def test_the_stamps_of_the_training_are_all_but_those_of_the_test(
    tmp_path: Path, packages: list[Package]
) -> None:
    count = write_stamps(packages, tmp_path / "stamps")
    written = {path.name for path in (tmp_path / "stamps").iterdir()}
    kept = [paths for kind, paths in SUBJECTS.items() if part_of(kind) != "test"]
    expected = [path for paths in (*kept, *SMALL_SUBJECTS.values()) for path in paths]
    assert written == {path.replace("/", "_") for path in expected}
    assert count == len(written) == 186


def test_no_background_of_the_test_is_written(tmp_path: Path, packages: list[Package]) -> None:
    count = write_wallpapers(packages, tmp_path / "wallpapers")
    assert count == len(list((tmp_path / "wallpapers").iterdir()))
    assert count == sum(part_of(each.path) != "test" for each in BACKGROUNDS)


def test_a_release_without_some_stamps_gives_the_others(
    tmp_path: Path, packages: list[Package]
) -> None:
    [stamps] = [each.folder / STAMPS_FOLDER for each in packages if each.name == STAMPS_PACKAGE]
    (stamps / SMALL_SUBJECTS["saw"][0]).unlink()
    assert write_stamps(packages, tmp_path / "stamps") == 185
