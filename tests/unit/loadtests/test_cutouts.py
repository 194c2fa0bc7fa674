"""The set of real cut-outs: its split, its images and its packages, without any package."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from loadtests.quality.composites import compose_image, draw_background
from loadtests.quality.cutouts import (
    Material,
    draw_cutouts,
    find_material,
    write_backgrounds,
    write_cutouts,
)
from loadtests.quality.packages import Package, fetch_package
from loadtests.quality.split import PARTS, part_of
from loadtests.quality.subjects import BACKGROUNDS, STAMPS_FOLDER, STAMPS_PACKAGE, SUBJECTS
from serve_app.errors import SourceNotFound
from serve_app.imaging.pixels import Pixels


def stamp() -> Pixels:
    """Return a red disc on a transparent, blue ground, uint8 [200, 240, 4]."""
    pixels = np.zeros((200, 240, 4), np.uint8)
    pixels[..., 2] = 255
    cv2.circle(pixels, (120, 100), 90, (255, 0, 0, 255), -1, cv2.LINE_AA)
    return pixels


def ground(shade: int = 120) -> Pixels:
    """Return a green background, uint8 [600, 800, 3]."""
    return np.full((600, 800, 3), (0, shade, 0), np.uint8)


@pytest.fixture
def packages(tmp_path: Path) -> list[Package]:
    """Return packages with every listed file: one disc for all stamps, one ground for all."""
    found = {STAMPS_PACKAGE: tmp_path / STAMPS_PACKAGE}
    one_stamp, one_ground = tmp_path / "stamp.png", tmp_path / "ground.jpg"
    Image.fromarray(stamp()).save(one_stamp)
    Image.fromarray(ground()).save(one_ground)
    for paths in SUBJECTS.values():
        for path in paths:
            _link(one_stamp, found[STAMPS_PACKAGE] / STAMPS_FOLDER / path)
    for background in BACKGROUNDS:
        folder = found.setdefault(background.package, tmp_path / background.package)
        _link(one_ground, folder / background.path)
    return [Package(name, "1", "0" * 64, folder) for name, folder in found.items()]


def _link(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists():
        to.hardlink_to(file)


def test_the_split_is_that_of_every_published_number() -> None:
    assert [part_of(name) for name in ("planet", "lion", "duck", "gnu")] == [
        "test",
        "test",
        "calibration",
        "development",
    ]
    # A name's part does not depend on which other names there are.
    sizes = [sum(part_of(str(number)) == part for number in range(20_000)) for part in PARTS]
    assert sizes == pytest.approx([5000, 9000, 6000], rel=0.03)


def test_parts_share_no_subject_and_no_background(packages: list[Package]) -> None:
    material = [find_material(packages, part) for part in PARTS]
    kinds = [{kind for kind, _ in part.subjects} for part in material]
    stamps = [{path for _, path in part.subjects} for part in material]
    files = [{path for path, _ in part.backgrounds} for part in material]
    for sets, total in ((kinds, len(SUBJECTS)), (stamps, 125), (files, 23)):
        assert sum(map(len, sets)) == len(set().union(*sets)) == total
        assert all(len(each) >= 6 for each in sets)


def test_the_documents_count_each_part(packages: list[Package]) -> None:
    page = (Path(__file__).parents[3] / "docs/quality.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    counted = []
    for part in PARTS:
        material = find_material(packages, part)
        kinds = {kind for kind, _ in material.subjects}
        files = {path for path, _ in material.backgrounds}
        counted.append((part, len(kinds), len(material.subjects), len(files)))
    assert [(name, *map(int, numbers)) for name, *numbers in rows] == counted


def test_a_release_without_some_files_gives_the_others(packages: list[Package]) -> None:
    before = find_material(packages, "test")
    before.subjects[0][1].unlink()
    after = find_material(packages, "test")
    assert after.subjects == before.subjects[1:]


def test_a_part_without_stamps_is_refused(tmp_path: Path, packages: list[Package]) -> None:
    empty = [Package(each.name, "9.1", "", tmp_path / "empty") for each in packages]
    with pytest.raises(SourceNotFound, match=rf"test has no stamps.*{STAMPS_PACKAGE} 9\.1"):
        find_material(empty, "test")


def test_images_do_not_depend_on_their_count(packages: list[Package]) -> None:
    material = find_material(packages, "test")
    few, many = list(draw_cutouts(material, 1)), list(draw_cutouts(material, 3))
    for one, other in zip(few, many[:1], strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.composite.image, other.composite.image)
        np.testing.assert_array_equal(one.composite.mask, other.composite.mask)
    other_seed = next(draw_cutouts(material, 1, seed=1))
    assert other_seed.composite.image.shape != few[0].composite.image.shape


def test_every_stamp_is_used_once_before_any_is_used_again(packages: list[Package]) -> None:
    full = find_material(packages, "calibration")
    few = tuple((f"kind {number}", path) for number, (_, path) in enumerate(full.subjects[:3]))
    material = Material("calibration", few, full.backgrounds)
    kinds = [each.name.rpartition("-")[2] for each in draw_cutouts(material, 6)]
    assert sorted(kinds[:3]) == sorted(kinds[3:]) == ["0", "1", "2"]


@pytest.mark.parametrize("seed", range(12))
def test_the_true_mask_is_where_the_subject_is(seed: int) -> None:
    made = compose_image(np.random.default_rng(seed), stamp(), ground())
    assert made.image.shape == (*made.mask.shape, 3)
    assert 300 <= max(made.mask.shape) <= 900
    inside = cv2.erode(made.mask, np.ones((15, 15), np.uint8)) == 255
    outside = cv2.dilate(made.mask, np.ones((15, 15), np.uint8)) == 0
    red, green, blue = made.image.astype(int).transpose(2, 0, 1)
    assert np.all(red[inside] > green[inside] + 60)
    # Nothing of the blue that the stamp has under its transparent pixels.
    assert np.all(green[outside] > blue[outside] - 20)
    assert np.median(blue) < 60
    assert 0.03 < (made.mask >= 128).mean() < 0.8
    edge = (made.mask > 0) & (made.mask < 255)
    assert edge.any()


def test_an_enlarged_stamp_keeps_its_share_of_the_image() -> None:
    small = np.ascontiguousarray(stamp()[::4, ::4])
    for seed in range(8):
        made = compose_image(np.random.default_rng(seed), small, ground())
        _, _, wide, tall = cv2.boundingRect(made.mask)
        assert max(made.mask.shape) < 400
        height, width = made.mask.shape
        assert max(wide / width, tall / height) > 0.3


def test_a_background_shows_nothing_but_the_background() -> None:
    scene = draw_background(np.random.default_rng(1), ground())
    assert 400 <= max(scene.shape) <= 900
    red, green, blue = scene.astype(int).transpose(2, 0, 1)
    assert np.all(green > red)
    assert np.all(green > blue)


def test_a_part_is_written_as_files(tmp_path: Path, packages: list[Package]) -> None:
    material = find_material(packages, "development")
    write_cutouts(material, 2, 5, tmp_path / "out")
    write_backgrounds(material, 1, 5, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names[0] == "development-0000-" + names[0][17:]
    assert [name.partition(".")[2] for name in names[:4]] == ["jpg", "mask.png"] * 2
    assert names[4:] == ["development-background-0000.jpg"]
    with (
        Image.open(tmp_path / "out" / names[0]) as image,
        Image.open(tmp_path / "out" / names[1]) as mask,
    ):
        assert (image.mode, mask.mode, image.size) == ("RGB", "L", mask.size)


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_a_package_file_is_unpacked_and_described(tmp_path: Path) -> None:
    control = tmp_path / "tree" / "DEBIAN" / "control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: pictures\nVersion: 1:2.3-4\nArchitecture: all\nMaintainer: nobody\n"
        "Description: pictures\n"
    )
    (tmp_path / "tree" / "picture.txt").write_text("a picture")
    cache = tmp_path / "cache"
    cache.mkdir()
    deb = cache / "pictures_1%3a2.3-4_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tmp_path / "tree"), str(deb)],
        check=True,
        capture_output=True,
    )
    for _ in range(2):
        package = fetch_package("pictures", cache)
        assert (package.name, package.version) == ("pictures", "1:2.3-4")
        assert (package.folder / "picture.txt").read_text() == "a picture"
        assert len(package.sha256) == 64
    deb.write_bytes(b"half a file")
    with pytest.raises(SourceNotFound, match="pictures is unavailable"):
        fetch_package("pictures", cache)


def test_a_machine_without_apt_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceNotFound, match=r"no apt-get.*copy the package file \(xyz_"):
        fetch_package("xyz", tmp_path / "cache")
