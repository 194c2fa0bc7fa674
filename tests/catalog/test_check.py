"""``foreedge catalog check`` and ``release``: a sound set-up, and what is wrong with others."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingest.cli.main import app
from ingest.smoke.doctor import examine_places
from serve_app.config import AppConfig
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, photographs
from tests.support.pages import blocks, section
from tests.support.postgres_server import PostgresServer

SECRET = "hunter2"
RIGHTS = blocks(section(Path(__file__).parents[2] / "docs" / "catalog.md", "Rights"), "sql")[0]
"""What a consumer's role is granted."""


def problems(config: AppConfig) -> dict[str, str]:
    return {each.check: each.problem for each in examine_places(config) if each.problem is not None}


def changed(config: AppConfig, section: str, **values: Any) -> AppConfig:
    given = getattr(config, section).model_dump()
    if "database_url" in given:
        given["database_url"] = config.catalog.database_url.get_secret_value()  # type: ignore[union-attr]
    kind = type(getattr(config, section))
    return config.model_copy(update={section: kind.model_validate(given | values)})


@pytest.fixture
def sound(bench: Bench, collection: Collection, postgres: PostgresServer) -> AppConfig:
    """Return settings with a role that has only the rights of the document."""
    book, _ = collection.add_book(*photographs(2))
    bench.upload(book)
    name = collection.url.rpartition("/")[2]
    role = f"least_{name}"
    collection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")
    collection.execute(RIGHTS.replace("TO foreedge;", f"TO {role};"))
    return changed(bench.config, "catalog", database_url=postgres.url(name, role, SECRET))


def test_a_sound_set_up_has_no_problem_and_is_not_changed(
    sound: AppConfig, bench: Bench, collection: Collection
) -> None:
    tables = ("books", "book_images", "image_processing_jobs")
    before = [collection.rows(f"SELECT * FROM {table} ORDER BY id") for table in tables]
    objects = bench.objects()
    found = list(examine_places(sound))
    assert [each for each in found if each.problem is not None] == []
    assert [each.check for each in found] == [
        "database",
        "tables",
        "rights in the database",
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "images in the bucket",
        "queue and dead-letter queue",
        "sqs:ReceiveMessage",
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:SendMessage",
        "sqs:SendMessage",
        "ledger",
    ]
    after = [collection.rows(f"SELECT * FROM {table} ORDER BY id") for table in tables]
    assert (after, bench.objects()) == (before, objects)
    uploads = bench.s3.list_multipart_uploads(Bucket=bench.bucket)
    assert uploads.get("Uploads", []) == []


DATABASE = {
    "no right to change jobs": (
        "REVOKE UPDATE ON image_processing_jobs FROM {role}",
        "UPDATE on image_processing_jobs",
    ),
    "no right to read jobs": (
        "REVOKE SELECT ON image_processing_jobs FROM {role}",
        "SELECT on image_processing_jobs",
    ),
    "no right to insert images": (
        "REVOKE INSERT ON book_images FROM {role}",
        "INSERT on book_images",
    ),
    "no right to lock books": ("REVOKE UPDATE (id) ON books FROM {role}", r"books \(id\)"),
    "no right to the sequence": (
        "REVOKE USAGE ON SEQUENCE book_images_id_seq FROM {role}",
        "USAGE on public.book_images_id_seq",
    ),
    "a missing column": (
        "ALTER TABLE book_images RENAME is_primary TO first",
        "book_images.is_primary is missing",
    ),
    "a column that must be given": (
        "ALTER TABLE image_processing_jobs ADD priority integer NOT NULL",
        r"image_processing_jobs.priority \(INTEGER\(\) NOT NULL, without a default\) must be given",
    ),
}


@pytest.mark.parametrize("what", DATABASE)
def test_what_is_wrong_in_the_database_is_named(
    what: str, sound: AppConfig, collection: Collection
) -> None:
    statement, expected = DATABASE[what]
    collection.execute(statement.format(role=f"least_{collection.url.rpartition('/')[2]}"))
    [(_, problem)] = problems(sound).items()
    assert re.search(expected, problem)
    assert SECRET not in problem


def with_another_password(config: AppConfig) -> AppConfig:
    url = config.catalog.database_url.get_secret_value()  # type: ignore[union-attr]
    return changed(config, "catalog", database_url=url.replace(SECRET, "hunter3"))


@pytest.fixture
def silent() -> Iterator[str]:
    """Yield the URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_other_settings_that_are_wrong_are_named(
    sound: AppConfig, bench: Bench, silent: str
) -> None:
    lonely = bench.sqs.create_queue(QueueName=f"{bench.bucket}-lonely")["QueueUrl"]
    orphan = bench.aws.create_queue(f"{bench.bucket}-orphan")
    bench.sqs.delete_queue(QueueUrl=f"{orphan}-dead")
    bench.aws.create_bucket(f"{bench.bucket}-empty")
    cases: dict[str, tuple[AppConfig, str, str]] = {
        "a bucket that is missing": (
            changed(sound, "catalog", images_bucket="nowhere"),
            "s3:ListBucket",
            "s3://nowhere",
        ),
        "another bucket": (
            changed(sound, "catalog", images_bucket=f"{bench.bucket}-empty"),
            "images in the bucket",
            "none of the newest images",
        ),
        "a queue that is missing": (
            changed(sound, "queue", url=f"{bench.url}-nowhere"),
            "queue and dead-letter queue",
            "create it",
        ),
        "a queue without dead letters": (
            changed(sound, "queue", url=lonely),
            "queue and dead-letter queue",
            "redrive policy",
        ),
        "a dead-letter queue that is missing": (
            changed(sound, "queue", url=orphan),
            "queue and dead-letter queue",
            f"{bench.bucket}-orphan-dead",
        ),
        "an AWS that does not answer": (
            changed(sound, "aws", endpoint_url=silent),
            "ledger",
            silent,
        ),
        "a ledger that is missing": (
            changed(sound, "ledger", bucket="nowhere"),
            "ledger",
            "nowhere",
        ),
        "a password that is wrong": (
            with_another_password(sound),
            "database",
            "password authentication failed",
        ),
        "a host that is wrong": (
            changed(sound, "catalog", database_url=f"postgresql://u:{SECRET}@127.0.0.1:9/db"),
            "database",
            "refused",
        ),
    }
    for case, (config, check, expected) in cases.items():
        found = problems(config)
        assert check in found, (case, found)
        assert expected in found[check], (case, found)
        assert "hunter" not in str(found), case


def test_the_commands(
    sound: AppConfig,
    bench: Bench,
    collection: Collection,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {
        "models": ["folio"],
        "aws": {"endpoint_url": bench.aws.endpoint_url},
        "queue": {"url": bench.url},
        "ledger": {"bucket": bench.bucket},
        "catalog": {
            "database_url": sound.catalog.database_url.get_secret_value(),  # type: ignore[union-attr]
            "images_bucket": bench.bucket,
        },
    }
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(settings))
    run = CliRunner()
    answer = run.invoke(app, ["catalog", "check", "--config", str(file), "--json"])
    assert answer.exit_code == 0, answer.output
    lines = [json.loads(line) for line in answer.output.splitlines()]
    assert {line["ok"] for line in lines} == {True}
    assert lines[-1]["check"] == "models"
    assert SECRET not in answer.output

    collection.execute("ALTER TABLE book_images RENAME is_primary TO first")
    answer = run.invoke(app, ["catalog", "check", "--config", str(file)])
    assert answer.exit_code == 1
    assert "FAILED  tables:" in answer.output
    assert SECRET not in answer.output

    collection.execute("ALTER TABLE book_images RENAME first TO is_primary")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    wrong = ["--set", "models=[u2net]", "--config", str(file)]
    answer = run.invoke(app, ["doctor", *wrong])
    assert answer.exit_code == 1
    assert "ok      database: PostgreSQL" in answer.output
    assert "FAILED  models: " in answer.output
    assert "u2net" in answer.output
    assert SECRET not in answer.output

    book, _ = collection.add_book()
    job = collection.queue(book, None, "processing")
    answer = run.invoke(app, ["catalog", "release", "--config", str(file), "--older-than", "15m"])
    assert answer.output.strip() == "Released 0 jobs."
    answer = run.invoke(app, ["catalog", "release", "--config", str(file), "--json"])
    assert json.loads(answer.output) == {"released": 1}
    assert collection.job(job)["status"] == "pending"
