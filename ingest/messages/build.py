"""Build the messages of a run, and new run ids."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

import orjson

from ingest.sources.base import Entry


def message_body(
    run_id: str, output: dict[str, Any], recipe: str | dict[str, Any], entry: Entry
) -> str:
    """Return the message for a photograph of a run; output and recipe are as in the message."""
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
    return orjson.dumps(message).decode()


def new_run_id() -> str:
    """Return a run's name: the time, so that names sort, and some chance."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


SCHEMA_VERSION = 1
"""Of the native shape."""


INVALID_RUN = "invalid"
"""The ledger's run of messages that could not be read."""
