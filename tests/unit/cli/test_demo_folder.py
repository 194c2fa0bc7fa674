"""The folder of a demonstration: nothing of the user's is deleted or written over."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ingest.cli.demo_folder import (
    MARK,
    MOST_IMAGES,
    check_fits,
    prepare_demo_folder,
    results_folder,
)
from ingest.cli.demonstration import DemoOptions, run_demo
from ingest.cli.main import app
from ingest.cli.own_images import own_images
from ingest.local.memory import machine_memory
from serve_app.errors import InvalidConfig


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_new_folder_is_marked_and_its_next_demonstration_clears_it(tmp_path: Path) -> None:
    out = tmp_path / "out" / "demo"
    prepare_demo_folder(out)
    assert (out / MARK).is_file()
    made = [write(out / name) for name in ("photographs/a.jpg", "masks/a.png", "cutouts/a.png")]
    kept = [write(out / name) for name in ("notes.txt", "mine/a.jpg")]

    prepare_demo_folder(out)

    assert not any(path.exists() for path in made)
    assert all(path.is_file() for path in kept)
    assert (out / MARK).is_file()


def test_results_of_own_images_stay_for_whatever_comes_next(tmp_path: Path) -> None:
    out, first, other = tmp_path / "out", tmp_path / "a", tmp_path / "b"
    prepare_demo_folder(out, first)
    kept = [write(out / name) for name in ("cutouts/1.png", "report.html")]

    for images in (other, None):
        with pytest.raises(InvalidConfig, match="nothing was changed") as error:
            prepare_demo_folder(out, images)
        assert f"Cut-outs of the images in {first}" in error.value.message
        remedy = error.value.message.partition("rm -r ")[2].split()
        assert remedy == [str(out / name) for name in (MARK, "cutouts", "report.html")]
    # The same images again replace one cut-out after the other.
    prepare_demo_folder(out, tmp_path / "b" / ".." / "a")

    assert all(path.is_file() for path in kept)


def test_own_images_take_the_place_of_our_photographs(tmp_path: Path) -> None:
    out, mine = tmp_path / "out", tmp_path / "a"
    prepare_demo_folder(out)
    ours = [write(out / name) for name in ("photographs/a.jpg", "masks/a.png", "cutouts/a.png")]

    prepare_demo_folder(out, mine)

    assert not any(path.exists() for path in ours)
    with pytest.raises(InvalidConfig, match="Cut-outs of the images in"):
        prepare_demo_folder(out)


def test_each_folder_of_images_has_its_own_results(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert results_folder(None) == Path("out/demo")
    assert results_folder(tmp_path / "a") == Path("out/images/a")
    assert results_folder(tmp_path / "b" / "..") == Path("out/images", tmp_path.name)
    assert results_folder(Path("/")) == Path("out/images/root")
    # Our own folders in out/ have such names.
    assert results_folder(tmp_path / "demo") == Path("out/images/demo")


def test_the_home_folder_is_found_in_paths_that_no_shell_has_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "shelf" / "out" / "1.jpg")

    # Refused after the folder was found, and before anything starts.
    result = CliRunner().invoke(app, ["demo", "--images=~/shelf", "--out=~/shelf/out"])

    assert isinstance(result.exception, InvalidConfig)
    assert (
        f"in {tmp_path}/shelf and the results in {tmp_path}/shelf/out:" in result.exception.message
    )


@pytest.mark.parametrize(
    "name", ["photographs/a.jpg", "masks/a.png", "cutouts/a.png", "report.json", "env"]
)
def test_a_folder_without_the_mark_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    mine = [write(tmp_path / name), write(tmp_path / "report.html"), write(tmp_path / "notes.txt")]

    with pytest.raises(InvalidConfig, match="nothing was changed") as error:
        prepare_demo_folder(tmp_path)

    remedy = error.value.message.partition("rm -r ")[2]
    assert str(tmp_path / name.partition("/")[0]) in remedy.split()
    assert all(path.is_file() for path in mine)
    assert not (tmp_path / MARK).exists()


def test_a_link_among_the_results_is_not_followed(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    prepare_demo_folder(out)
    mine = write(elsewhere / "a.jpg")
    (out / "cutouts").symlink_to(elsewhere)

    with pytest.raises(InvalidConfig, match="cutouts is a link"):
        prepare_demo_folder(out)

    assert mine.is_file()


def test_a_report_makes_no_folder_a_demonstration(tmp_path: Path) -> None:
    mine = [write(tmp_path / name) for name in ("report.json", "report.html", "photographs/a.jpg")]

    with pytest.raises(InvalidConfig, match="nothing was changed"):
        run_demo(DemoOptions(None, 1, tmp_path, keep=False, seed=0), Console(file=io.StringIO()))

    assert all(path.is_file() for path in mine)


@pytest.mark.parametrize("images", ["out/photographs", "out", ".", "out/../out/photographs"])
def test_images_among_the_results_are_refused_and_kept(tmp_path: Path, images: str) -> None:
    out = tmp_path / "out"
    prepare_demo_folder(out)
    mine = write(out / "photographs" / "mine.jpg")
    options = DemoOptions(tmp_path / images, 1, out, keep=False, seed=0)

    with pytest.raises(InvalidConfig, match="one is inside the other"):
        run_demo(options, Console(file=io.StringIO()))

    assert mine.is_file()


def test_a_wrong_folder_of_images_deletes_no_results(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_demo_folder(out)
    result = write(out / "cutouts" / "a.png")
    (tmp_path / "empty").mkdir()

    for images, reason in (("nowhere", "is not a folder"), ("empty", "holds no images")):
        options = DemoOptions(tmp_path / images, 1, out, keep=False, seed=0)
        with pytest.raises(InvalidConfig, match=reason):
            run_demo(options, Console(file=io.StringIO()))

    assert result.is_file()


def test_images_next_to_the_results_are_taken(tmp_path: Path) -> None:
    image = write(tmp_path / "shelf" / "1.jpg")
    assert own_images(image.parent, tmp_path / "shelf-cutouts") == ([image], {})


def test_more_images_than_the_memory_holds_are_refused_with_advice(tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare_demo_folder(out)
    result = write(out / "cutouts" / "a.png")
    folder = tmp_path / "shelf"
    for number in range(4):
        write(folder / f"{number}.jpg")
    options = DemoOptions(folder, 1, out, keep=False, seed=0, most_images=3)

    with pytest.raises(
        InvalidConfig, match=r"4 images .* 3 images at most.*foreedge folder IMAGES CUTOUTS"
    ):
        run_demo(options, Console(file=io.StringIO()))

    assert result.is_file()


def test_a_demonstration_has_a_bound_of_memory(tmp_path: Path) -> None:
    image = write(tmp_path / "1.jpg")
    os.truncate(image, 1_000)
    # The image, and a PNG of nine times its bytes, in half of the memory.
    check_fits([image] * 100, 2_000_000)
    with pytest.raises(InvalidConfig, match="of which these and their cut-outs may need"):
        check_fits([image] * 100, 1_999_999)
    check_fits([image] * MOST_IMAGES, machine_memory())
    with pytest.raises(InvalidConfig, match="10,001 images"):
        check_fits([image] * (MOST_IMAGES + 1), machine_memory())
    # Of a large object, which is a file, no more than 5 MiB are in memory. This one has a hole.
    os.truncate(image, 10**12)
    check_fits([image] * 100, 2 * 100 * 2 * 5 * 1024**2)
    with pytest.raises(InvalidConfig, match=r"100 images of 100000\.0 GB"):
        check_fits([image] * 100, 2 * 100 * 2 * 5 * 1024**2 - 500_000)
