"""Build the messages of a run in the native shape, and new run ids."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

import orjson

from ingest.sources.base import Entry
from serve_app.contracts.job import CatalogJob

SCHEMA_VERSION = 1
"""Version of the native shape."""

INVALID_RUN = "invalid"
"""Run id under which the ledger records messages that could not be parsed."""


def message_body(
    run_id: str, output: dict[str, Any], recipe: str | dict[str, Any], entry: Entry
) -> str:
    """Return the body of the message for an image of a run.

    Args:
        run_id: Id of the run.
        output: Output of the run, as a message carries it.
        recipe: Recipe of the run, as a message carries it: a preset's name or an object.
        entry: Image to process. The job of a collection has the message of its kind, since one
            that named the image would make a cut-out that no table knows.
    """
    if entry.book_id is not None:
        ids = {"book_id": entry.book_id, "image_id": entry.image_id}
        return catalog_message_body(CatalogJob(job_id=entry.job_id or "", run_id=run_id, **ids))
    source = {"bucket": entry.bucket, "key": entry.key}
    if entry.version_id:
        source["version_id"] = entry.version_id
    if entry.etag:
        source["etag"] = entry.etag
    message = {
        "schema": SCHEMA_VERSION,
        "job_id": entry.job_id,
        "run_id": run_id,
        "source": source,
        "output": output,
        "recipe": recipe,
    }
    return message_text(message)


def catalog_message_body(job: CatalogJob) -> str:
    """Return the body of the message for a job of a book collection, which names its run."""
    return message_text(job.model_dump(mode="json"))


def message_text(message: dict[str, Any]) -> str:
    """Return a message as JSON that SQS accepts.

    SQS accepts the characters of XML 1.0. Of the others, JSON itself escapes those below U+0020,
    and these two occur in texts alone, as a key may contain them.
    """
    text = orjson.dumps(message).decode()
    return text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def new_run_id() -> str:
    """Return an id for a new run: the time, by which ids sort, and a random part."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
