"""``foreedge folder``: the files that it makes, keeps and reports."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.cli.main import app
from serve_app.errors import (
    CorruptImage,
    ForeedgeError,
    InvalidConfig,
    InvalidRecipe,
    NoSubject,
    Overloaded,
    UnknownModel,
)
from tests.support.cutout_server import CutoutServer, cutout_server, refusal

IMAGES = {"1.jpg": b"one", "1.webp": b"two", "sub/3.png": b"three", "sub/4.jpeg": b"four"}
CUTOUTS = {"1.jpg.png": b"one", "1.webp.png": b"two", "sub/3.png": b"three", "sub/4.png": b"four"}


@pytest.fixture
def server() -> Iterator[CutoutServer]:
    with cutout_server() as running:
        yield running


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for name, data in {**IMAGES, "notes.txt": b"-"}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def run(server: CutoutServer, images: Path, *options: str) -> tuple[int, str, Exception | None]:
    """Cut out a folder into the folder ``out`` next to it."""
    out = str(images.parent / "out")
    result = CliRunner().invoke(app, ["folder", str(images), out, "--url", server.url, *options])
    error = result.exception
    assert error is None or isinstance(error, SystemExit | ForeedgeError)
    return result.exit_code, result.stdout, None if isinstance(error, SystemExit) else error


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def cut(cutouts: dict[str, bytes]) -> dict[str, bytes]:
    return {name: b"cut:" + data for name, data in cutouts.items()}


def test_every_image_has_a_cutout_in_the_same_subfolder(server: CutoutServer, images: Path) -> None:
    code, out, error = run(server, images)

    assert (code, error) == (0, None)
    assert files_in(images.parent / "out") == cut(CUTOUTS)
    assert f"4 images in {images}" in out
    assert "1 other file skipped: 1 .txt" in out
    assert f"Cut-outs  {images.parent / 'out'}" in out


def test_what_is_there_is_not_made_again(server: CutoutServer, images: Path) -> None:
    run(server, images)
    server.received.clear()
    newer = images / "sub" / "4.jpeg"
    newer.write_bytes(b"changed")
    os.utime(newer, (time.time() + 60, time.time() + 60))
    (images / "5.jpg").write_bytes(b"five")

    code, out, _ = run(server, images)

    assert code == 0
    assert "3 cut-outs there before, whatever their recipe was" in out
    assert sorted(body for body, _ in server.received) == [b"changed", b"five"]
    assert files_in(images.parent / "out") == cut(
        {**CUTOUTS, "sub/4.png": b"changed", "5.png": b"five"}
    )


def test_the_recipe_names_the_format_of_the_files(server: CutoutServer, images: Path) -> None:
    recipe = '{"format": "jpeg", "background": "white"}'
    run(server, images, "--recipe", recipe)
    assert "sub/3.jpg" in files_in(images.parent / "out")
    assert {request["recipe"] for _, request in server.received} == {recipe}


def test_images_that_fail_are_listed_and_tried_again(server: CutoutServer, images: Path) -> None:
    server.prepared = {
        b"one": [refusal(CorruptImage("=cut short"))],
        b"four": [refusal(NoSubject("nothing there"))],
    }
    out = images.parent / "out"

    code, text, _ = run(server, images, "--json")

    assert code == 1
    assert json.loads(text) == {"images": 4, "there_before": 0, "done": 2, "failed": 2}
    with (out / "failures.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["image", "code", "message"],
            ["1.jpg", "corrupt_image", "'=cut short"],
            ["sub/4.jpeg", "no_subject", "nothing there"],
        ]
    server.prepared.clear()
    server.received.clear()

    code, text, _ = run(server, images)

    assert code == 0
    assert sorted(body for body, _ in server.received) == [b"four", b"one"]
    assert files_in(out) == cut(CUTOUTS)


def test_failures_stay_listed_until_their_images_are_tried_again(
    server: CutoutServer, images: Path
) -> None:
    listed = images.parent / "out" / "failures.csv"
    server.prepared = {data: [refusal(CorruptImage("cut short"))] for data in (b"one", b"four")}
    run(server, images)
    before = listed.read_bytes()
    # The server refuses what all images have in common, before one of these has ended again.
    server.prepared = {data: [refusal(UnknownModel("no such"))] for data in IMAGES.values()}

    _, _, error = run(server, images)

    assert isinstance(error, UnknownModel)
    assert listed.read_bytes() == before


def test_a_file_with_the_name_of_the_list_is_refused_and_kept(
    server: CutoutServer, images: Path
) -> None:
    listed = images.parent / "out" / "failures.csv"
    listed.parent.mkdir()
    listed.write_text("mine\n")

    _, _, error = run(server, images)

    assert isinstance(error, InvalidConfig)
    assert server.received == []
    assert listed.read_text() == "mine\n"


def test_a_cutout_that_cannot_have_its_name_fails_alone(server: CutoutServer, images: Path) -> None:
    out, fits, too_long = images.parent / "out", "f" * 251, "l" * 251
    (images / f"{fits}.jpg").write_bytes(b"fits")
    # Two images with one stem, so that the suffix of the cut-out is appended.
    (images / f"{too_long}.jpg").write_bytes(b"too long")
    (images / f"{too_long}.png").write_bytes(b"too long")
    (out / "sub" / "3.png" / "folder").mkdir(parents=True)
    (images / "file").mkdir()
    (images / "file" / "5.jpg").write_bytes(b"five")
    (out / "file").write_bytes(b"not a folder")

    code, _, error = run(server, images, "--requests", "1")

    assert (code, error) == (1, None)
    with (out / "failures.csv").open(newline="") as file:
        failures = {row["image"]: (row["code"], row["message"]) for row in csv.DictReader(file)}
    reasons = {
        f"{too_long}.jpg": "File name too long",
        f"{too_long}.png": "File name too long",
        "sub/3.png": "Is a directory",
        "file/5.jpg": "File exists",
    }
    assert failures.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert failures[name][0] == "storage_rejected"
        assert failures[name][1].endswith(f"cannot be written: {reason}")
    found = files_in(out)
    assert found[f"{fits}.png"] == b"cut:fits"
    assert found.keys() == {
        "1.jpg.png", "1.webp.png", "sub/4.png", "file", "failures.csv", f"{fits}.png"
    }  # fmt: skip


def test_a_place_that_takes_no_cutout_at_all_ends_the_command(
    server: CutoutServer, images: Path
) -> None:
    # A file system that nobody may write to, not even root.
    command = ["folder", str(images), "/proc/self/out", "--url", server.url, "--requests", "1"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, OSError)
    assert len(server.received) == 1
    assert "The same command continues" in result.stdout


def test_a_refusal_of_the_request_ends_the_command_at_once(
    server: CutoutServer, images: Path
) -> None:
    server.prepared = {data: [refusal(UnknownModel("no such"))] for data in IMAGES.values()}

    _, out, error = run(server, images, "--requests", "1")

    assert isinstance(error, UnknownModel)
    assert len(server.received) == 1
    assert "The same command continues" in out
    assert not (images.parent / "out" / "failures.csv").exists()


def test_no_more_images_than_asked_for_are_sent_at_once(
    server: CutoutServer, images: Path, tmp_path: Path
) -> None:
    for number in range(40):
        (images / f"n{number}.jpg").write_bytes(b"%d" % number)
    assert run(server, images, "--requests", "3")[0] == 0
    assert 1 <= server.most_at_once <= 3
    assert len(server.received) == 44


def test_wrong_folders_recipes_and_keys_are_refused_before_anything_is_sent(
    server: CutoutServer, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("two keys\n")
    for options, kind, reason in (
        (["--recipe", "nothing"], InvalidRecipe, "not a preset"),
        (["--api-key-file", str(tmp_path / "keys")], InvalidConfig, "one API key"),
    ):
        _, _, error = run(server, images, *options)
        assert isinstance(error, kind)
        assert reason in str(error)
    for source in (tmp_path / "nowhere", tmp_path / "out" / ".."):
        _, _, error = run(server, source)
        assert isinstance(error, InvalidConfig)
    result = CliRunner().invoke(app, ["folder", str(images), str(images), "--url", server.url])
    assert isinstance(result.exception, InvalidConfig)
    assert "one is inside the other" in result.exception.message
    assert server.received == []


def test_an_api_key_is_read_from_its_file(
    server: CutoutServer, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("secret\n")
    assert run(server, images, "--api-key-file", str(tmp_path / "key"))[0] == 0
    assert {request["X-API-Key"] for _, request in server.received} == {"secret"}


def test_after_ctrl_c_it_says_at_once_what_is_awaited(server: CutoutServer, images: Path) -> None:
    server.hold.clear()
    foreedge = str(Path(sys.executable).parent / "foreedge")
    command = [foreedge, "folder", str(images), str(images.parent / "out"), "--url", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        deadline = time.monotonic() + 60
        while len(server.received) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        lines = iter(process.stdout.readline, "")
        # The answers come after the line.
        assert any("Stopping. The server still has 4 images" in line for line in lines)
        server.hold.set()
        process.communicate(timeout=20)

    assert process.returncode == 130
    assert files_in(images.parent / "out") == cut(CUTOUTS)


def test_it_can_be_stopped_and_continued(server: CutoutServer, images: Path) -> None:
    out = images.parent / "out"
    server.prepared[b"four"] = [refusal(Overloaded("busy"), Retry_After="30")]
    foreedge = str(Path(sys.executable).parent / "foreedge")
    command = [foreedge, "folder", str(images), str(out), "--url", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while len(server.received) < 4 or len(files_in(out)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        text, _ = process.communicate(timeout=20)

    assert process.returncode == 130
    assert f"Cut-outs that are complete stay in {out}. The same command continues." in text
    assert set(files_in(out)) == set(CUTOUTS) - {"sub/4.png"}
    server.prepared.clear()
    assert run(server, images)[0] == 0
    assert files_in(out) == cut(CUTOUTS)
