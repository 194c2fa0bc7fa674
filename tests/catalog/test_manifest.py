"""``foreedge catalog manifest``: the images that jobs would cut out, which bulk can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner

from ingest.cli.main import app
from ingest.sources.base import Entry
from ingest.sources.manifest import ManifestSource
from serve_app.aws import aws_client
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, Image, photographs
from tests.catalog.commands import command, settings_file


@pytest.fixture
def settings(bench: Bench, tmp_path: Path) -> str:
    """Return the name of a file with the settings of the bench."""
    return settings_file(bench, tmp_path)


def manifest(settings: str, *options: str) -> str:
    return command("catalog", "manifest", *options, settings=settings)


def test_each_image_is_listed_once_with_its_newest_job(
    settings: str, bench: Bench, collection: Collection, tmp_path: Path
) -> None:
    key = 'cover, "=1"\nü.jpg'
    book, [_, cover] = collection.add_book(
        Image("{book}_a.jpg", primary=True), Image(f"{{book}}_{key}", "cover")
    )
    jobs = [collection.queue(book, cover, "failed") for _ in range(3)]
    collection.execute("UPDATE image_processing_jobs SET created_at = now() - interval '1 day'")
    jobs.append(collection.queue(book, cover, "pending"))
    other, [image] = collection.add_book(Image("books/{book}/image_01.webp", None))
    open_job = collection.queue(other, image, "queue_failed")
    done_book, [first, second] = collection.add_book(*photographs(2))
    # The old worker's cut-out is primary, and nothing says of which image it was made.
    collection.add_image(
        done_book, Image("{book}_processed_x.png", primary=True, processed=True), 0
    )
    collection.execute("UPDATE book_images SET is_primary = false WHERE id = %s", first)
    done = collection.queue(done_book, second, "completed")
    collection.queue(collection.add_book()[0], None)
    before = collection.rows("SELECT * FROM image_processing_jobs ORDER BY id")

    file = tmp_path / "open.csv"
    manifest(settings, "--csv", str(file))
    assert list(ManifestSource(file).entries()) == [
        Entry(bench.bucket, f"books/{book}_{key}", job_id=jobs[-1].job_id),
        Entry(bench.bucket, f"books/{other}/image_01.webp", job_id=open_job.job_id),
    ]
    # The runner of the command reads its lines as text, as this does.
    assert manifest(settings) == file.read_text("utf-8")
    [line] = manifest(settings, "--completed", "--json").splitlines()
    assert json.loads(line) == {
        "bucket": bench.bucket,
        "key": f"books/{done_book}_{1:032x}.jpg",
        "job_id": done.job_id,
    }
    assert collection.rows("SELECT * FROM image_processing_jobs ORDER BY id") == before


def test_a_role_that_may_only_read_is_enough(
    settings: str, bench: Bench, collection: Collection
) -> None:
    book, [image] = collection.add_book(*photographs(1))
    job = collection.queue(book, image)
    collection.execute("ALTER DATABASE " + collection.url.rpartition("/")[2] +
                       " SET default_transaction_read_only = on")  # fmt: skip
    assert job.job_id in manifest(settings)


@pytest.mark.parametrize(
    ("words", "shown"), [("manifest", "bucket,key,job_id"), ("release", "Released 1 job.")]
)
def test_the_secret_is_read_from_the_server_of_the_option(
    words: str, shown: str, bench: Bench, collection: Collection, tmp_path: Path
) -> None:
    book, [image] = collection.add_book(*photographs(1))
    collection.queue(book, image, "processing")
    login = conninfo_to_dict(collection.url)
    secret = {"username": login["user"], "password": login["password"], "host": login["host"]}
    secret |= {"port": login["port"], "dbname": login["dbname"]}
    secrets = aws_client("secretsmanager", bench.aws.aws)
    secrets.create_secret(Name=bench.bucket, SecretString=json.dumps(secret))
    file = tmp_path / "settings.yaml"
    catalog = {"database_secret": bench.bucket, "images_bucket": bench.bucket}
    values = {"queue": {"url": bench.url}, "ledger": {"bucket": bench.bucket}, "catalog": catalog}
    file.write_text(json.dumps(values))
    endpoint = ("--endpoint-url", bench.aws.endpoint_url)
    assert shown in command("catalog", words, *endpoint, settings=str(file))


def test_without_a_catalog_the_command_says_what_is_missing() -> None:
    answer = CliRunner().invoke(app, ["catalog", "manifest"])
    assert "no catalog is configured" in str(answer.exception)
