"""``foreedge bulk``: what it refuses before anything is uploaded, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from ingest.cli import options
from ingest.cli.main import app
from ingest.runs.folder import RunFolder
from ingest.runs.job_list import PART_JOBS, JobList, Sent
from ingest.runs.manifest import read_manifest, write_manifest
from ingest.sources.base import Entry
from serve_app.errors import ForeedgeError, InvalidConfig, QueueUnavailable, SourceNotAllowed
from tests.unit.cli.test_cli import LEDGER, Workshop, put

SEND = ("--queue", "http://q", "--run-id", "r7")


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    made = Workshop(tmp_path)
    monkeypatch.setattr(options, "aws_client", lambda *_, **__: made)
    monkeypatch.setenv("COLUMNS", "200")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photographs"
    made.mkdir()
    for number in range(3):
        (made / f"{number}.jpg").write_bytes(b"x" * (number + 1))
    return made


def allow(workshop: Workshop, *buckets: str) -> None:
    """Let jobs name these buckets only, as Terraform's output does."""
    settings = json.loads(workshop.config.read_text())
    settings["storage"]["allowed_buckets"] = buckets
    workshop.config.write_text(json.dumps(settings))


@pytest.mark.parametrize("dry", [False, True])
def test_nothing_is_uploaded_to_a_bucket_that_no_job_may_name(
    workshop: Workshop, folder: Path, dry: bool
) -> None:
    allow(workshop, "images", "cutouts")
    how = ["--dry-run"] if dry else []

    with pytest.raises(SourceNotAllowed, match=r"'b'.*--upload-to.*images, cutouts"):
        workshop.run("bulk", str(folder), *SEND, *how)

    assert workshop.sent == []
    assert not (workshop.root / "store").exists()

    to = ("--upload-to", "s3://images/up/", "--output", "s3://cutouts/")
    assert workshop.run("bulk", str(folder), *SEND, *to, *how)[0] == 0
    assert len(workshop.sent) == (0 if dry else 3)


@pytest.mark.parametrize("kind", ["prefix", "manifest"])
def test_no_message_names_a_bucket_that_jobs_may_not(workshop: Workshop, kind: str) -> None:
    put(workshop, "in/1.jpg")
    listed = workshop.root / "images.csv"
    listed.write_text("bucket,key\nb,in/1.jpg\n")
    source = "s3://b/in/" if kind == "prefix" else str(listed)

    allow(workshop, "b")
    with pytest.raises(SourceNotAllowed, match=r"results to bucket 'elsewhere'.*--output"):
        workshop.run("bulk", source, *SEND, "--output", "s3://elsewhere/")
    allow(workshop, "elsewhere")
    with pytest.raises(SourceNotAllowed, match=r"images from bucket 'b'.*Extend"):
        workshop.run("bulk", source, *SEND, "--output", "s3://elsewhere/")

    assert workshop.sent == []
    allow(workshop, "b", "elsewhere")
    assert workshop.run("bulk", source, *SEND, "--output", "s3://elsewhere/")[0] == 0
    assert len(workshop.sent) == 1


def test_a_run_goes_to_the_queue_of_a_catalog_only_if_it_is_named(
    workshop: Workshop, folder: Path
) -> None:
    settings = json.loads(workshop.config.read_text())
    settings["queue"] = {"url": "http://application"}
    settings["catalog"] = {"database_url": "postgresql://u:p@h/d", "images_bucket": "books"}
    del settings["storage"]
    workshop.config.write_text(json.dumps(settings))

    with pytest.raises(InvalidConfig, match=r"http://application, is for the catalog's .*--queue"):
        workshop.run("bulk", "s3://b/in/", "--run-id", "r7")

    assert workshop.sent == []


def bulk(workshop: Workshop, folder: Path) -> tuple[str, ForeedgeError | None]:
    """Send a folder, and return the output and the error."""
    command = ["bulk", str(folder), *SEND, "--all-names", "--config", str(workshop.config)]
    result = CliRunner().invoke(app, command)
    error = result.exception
    assert error is None or isinstance(error, ForeedgeError)
    return result.stdout, error


def test_an_upload_that_failed_resumes_with_the_rest(workshop: Workshop, folder: Path) -> None:
    place = workshop.root / "store" / "b" / "uploads" / "r7"
    # A folder in the place of an object refuses its write, as a store does that is full.
    (place / "1.jpg").mkdir(parents=True)

    out, error = bulk(workshop, folder)

    assert error is not None
    assert f"To resume:  foreedge bulk {folder} --run-id r7" in out
    for flags in ("--queue http://q", "--all-names", f"--config {workshop.config}"):
        assert flags in out
    assert workshop.sent == []
    done = {path: path.stat().st_mtime_ns for path in place.iterdir() if path.is_file()}
    assert done

    (place / "1.jpg").rmdir()
    out, error = bulk(workshop, folder)

    assert error is None
    assert f"{len(done)} image" in out
    assert "uploaded before" in out
    assert [path.stat().st_mtime_ns for path in done] == list(done.values())
    assert sorted(path.name for path in place.iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(workshop.sent) == 3


def test_the_home_folder_is_found_in_a_source_that_no_shell_has_expanded(
    workshop: Workshop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))

    _, out, _ = workshop.run("bulk", f"~/{folder.name}", "--dry-run")

    assert f"3 images from {folder}" in out


def test_a_folder_without_a_run_id_says_how_it_is_sent_again_without_work(
    workshop: Workshop, folder: Path
) -> None:
    _, out, _ = workshop.run("bulk", str(folder), "--queue", "http://q")
    [advice] = [line for line in out.splitlines() if line.startswith("The images are uploaded")]
    before = sorted(workshop.store.keys("b", "uploads/"))
    assert out.index(advice) < out.index("Uploading")

    # As it says.
    _, out, _ = workshop.run("bulk", str(folder), "--queue", "http://q", *advice.split()[-2:])

    assert "already sent" in out
    assert "The images are uploaded" not in out
    assert sorted(workshop.store.keys("b", "uploads/")) == before
    # A prefix needs no such advice.
    _, out, _ = workshop.run("bulk", "s3://b/uploads/", "--queue", "http://q")
    assert "uploaded below" not in out


class NoQueue(Workshop):
    """A workshop whose queue does not exist."""

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        error: Any = {"Error": {"Code": "QueueDoesNotExist", "Message": "none"}}
        raise ClientError(error, "GetQueueAttributes")


def test_nothing_is_uploaded_for_a_queue_that_does_not_answer(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = NoQueue(tmp_path)
    monkeypatch.setattr(options, "aws_client", lambda *_, **__: workshop)

    _, error = bulk(workshop, folder)

    assert isinstance(error, QueueUnavailable)
    assert list(workshop.store.keys("b", "")) == []


def test_one_client_of_the_queue_serves_the_whole_command(
    workshop: Workshop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make(service: str, *_: Any, **__: Any) -> Workshop:
        made.append(service)
        return workshop

    monkeypatch.setattr(options, "aws_client", make)

    # It looks at the queue, uploads, sends and watches.
    assert workshop.run("bulk", str(folder), *SEND, "--wait")[0] == 0
    assert (len(workshop.sent), made) == (3, ["sqs"])
    # The second time, it only watches.
    assert workshop.run("bulk", str(folder), *SEND, "--wait")[0] == 0
    assert (len(workshop.sent), made) == (3, ["sqs"] * 2)


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("kind", ["folder", "prefix"])
def test_it_says_which_files_were_left_out(
    workshop: Workshop, folder: Path, kind: str, dry: bool
) -> None:
    others = ["a.CR2", "b.cr2", "notes", ".DS_Store", "x.psd"]
    for name in others:
        (folder / name).write_bytes(b"x")
    put(workshop, "in/1.jpg", *(f"in/{name}" for name in others), "in/a/0123456789abcdef0123.png")
    source = str(folder) if kind == "folder" else "s3://b/in/"

    _, out, _ = workshop.run("bulk", source, *SEND, *(["--dry-run"] if dry else []))

    number = 5 if kind == "folder" else 6
    own = "" if kind == "folder" else "1 of Foreedge"
    assert out.count(" skipped") == 1
    [line] = [line for line in out.splitlines() if " skipped: " in line]
    assert line.startswith(f"  {number} other files skipped: 2 ")
    assert {"2 .cr2", "2 without an extension", "1 .psd"} <= set(line.split(": ")[1].split(", "))
    assert own in line


def test_a_queue_that_cannot_be_served_is_refused_before_anything_is_done(
    workshop: Workshop, folder: Path
) -> None:
    command = ["bulk", str(folder), "--queue", "http://q.fifo", "--config", str(workshop.config)]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, InvalidConfig)
    assert "FIFO" in result.exception.message
    assert "To resume" not in result.stdout
    assert list(workshop.store.keys("b", "")) == []


def stop_while_listed(workshop: Workshop, listed: int, last: str) -> None:
    """Make the run r7 one that was stopped when a part of its source was listed and sent.

    Args:
        workshop: The workshop, in which the run was sent.
        listed: Number of jobs in the list.
        last: Key of the last of them.
    """
    folder = RunFolder(workshop.store, LEDGER, "r7")
    workshop.store.delete("b", list(folder.part_keys("jobs")))
    entries = [Entry("b", f"in/{n:06d}.jpg", job_id=f"{n:032x}") for n in range(listed - 1)]
    job_list = JobList(folder)
    job_list.write(0, [*entries, Entry("b", last, job_id="f" * 32)])
    job_list.write_sent(Sent(jobs=listed))
    changes = {"jobs": listed, "complete": False}
    write_manifest(folder, read_manifest(folder).model_copy(update=changes))
    workshop.sent.clear()


def test_a_run_that_cannot_be_resumed_is_not_told_how_to(workshop: Workshop) -> None:
    listed = workshop.root / "images.csv"
    listed.write_text("bucket,key\n" + "".join(f"b,in/{n}.jpg\n" for n in range(3)))
    command = ["bulk", str(listed), *SEND, "--config", str(workshop.config)]
    assert CliRunner().invoke(app, command).exit_code == 0
    stop_while_listed(workshop, PART_JOBS, "in/x.jpg")

    result = CliRunner().invoke(app, command)

    assert isinstance(result.exception, InvalidConfig)
    assert "choose another --run-id -- messages sent: 5,000" in result.exception.message
    assert "resumes from there" not in result.exception.message
    assert "To resume" not in result.stdout


def test_a_resumed_run_counts_no_files_that_it_has_not_read(workshop: Workshop) -> None:
    put(workshop, *(f"in/{n}.txt" for n in range(3)), "in/8.jpg", "in/9.jpg", "in/9.txt")
    _, out, _ = workshop.run("bulk", "s3://b/in/", *SEND)
    assert "4 other files skipped" in out
    stop_while_listed(workshop, PART_JOBS, "in/8.jpg")

    _, out, _ = workshop.run("bulk", "s3://b/in/", *SEND)

    assert "Messages sent: 5,001" in out
    assert "skipped" not in out


def test_few_of_many_kinds_of_other_files_are_named(workshop: Workshop, folder: Path) -> None:
    for number in range(20):
        (folder / f"x.k{number}").write_bytes(b"x")
    _, out, _ = workshop.run("bulk", str(folder), "--dry-run")
    [line] = [line for line in out.splitlines() if "20 other files skipped: " in line]
    assert line.count("1 .k") == 8
    assert line.endswith(", …")


def test_folders_that_are_not_looked_into_are_counted_apart(
    workshop: Workshop, folder: Path
) -> None:
    others = workshop.root / "others"
    others.mkdir()
    (folder / "linked").symlink_to(others)
    _, out, _ = workshop.run("bulk", str(folder), "--dry-run")
    assert "  Not looked into: 1 linked folder\n" in out

    (folder / "again").symlink_to(others)
    (folder / "notes.txt").write_bytes(b"x")
    _, out, _ = workshop.run("bulk", str(folder), "--dry-run")
    assert "  1 other file skipped: 1 .txt. Not looked into: 2 linked folders\n" in out
