"""The cut-outs of a folder: which images fail alone, and what ends the work on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.local.cutout_client import CutoutClient
from ingest.local.folder_cutouts import CutoutFile, Folders, cut_out_files
from serve_app.errors import ModelUnavailable, Overloaded, ReplicaLost
from tests.support.cutout_server import Answer, CutoutServer, cutout_server, refusal

FILES = [CutoutFile(f"{number}.jpg", f"{number}.png") for number in range(1, 5)]


@pytest.fixture
def server() -> Iterator[CutoutServer]:
    with cutout_server() as running:
        yield running


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    (tmp_path / "in").mkdir()
    for file, data in zip(FILES, (b"one", b"two", b"three", b"four"), strict=True):
        (tmp_path / "in" / file.image).write_bytes(data)
    return Folders(tmp_path / "in", tmp_path / "out")


def never_stopped(awaited: int) -> None:
    raise AssertionError(awaited)


def test_a_file_that_cannot_be_read_fails_alone(server: CutoutServer, folders: Folders) -> None:
    # A list that is older than the folder.
    files = [CutoutFile(name, name) for name in ("gone.jpg", "1.jpg")]
    ends = {
        end.image: end.error and end.error.code
        for end in cut_out_files(
            CutoutClient(server.url, "cutout"), folders, files, 2, never_stopped
        )
    }
    assert ends == {"gone.jpg": "source_not_found", "1.jpg": None}


def test_an_image_that_ends_its_replica_does_not_keep_the_others(
    server: CutoutServer, folders: Folders
) -> None:
    server.prepared[b"one"] = [Answer(500, b"Internal Server Error", {})]
    client = CutoutClient(server.url, "cutout", patience_s=0)

    ends = [
        end.error and end.error.code
        for end in cut_out_files(client, folders, FILES, 1, never_stopped)
    ]

    assert ends == ["replica_lost", None, None, None]


def test_a_server_that_takes_no_image_any_more_ends_the_command(
    server: CutoutServer, folders: Folders
) -> None:
    stopped: list[int] = []
    lost, busy = Answer(500, b"Internal Server Error", {}), refusal(Overloaded("busy"))
    for answer, models, kind in (
        (lost, refusal(ModelUnavailable("starting")), ReplicaLost),
        (busy, server.models, Overloaded),
    ):
        server.prepared[b"one"], server.models = [answer], models
        client = CutoutClient(server.url, "cutout", patience_s=0)
        with pytest.raises(kind):
            list(cut_out_files(client, folders, FILES, 1, stopped.append))
    assert stopped == [0, 0]
