"""``foreedge bulk``: what it refuses before anything is uploaded, and what it tells."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest.cli import options
from serve_app.errors import SourceNotAllowed
from tests.unit.cli.test_cli import Workshop, put

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
