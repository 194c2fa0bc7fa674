"""The run's manifest (run.json): what was asked for."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError

from ingest.runs.folder import run_folder
from serve_app.config import LedgerConfig
from serve_app.contracts.base import Contract, describe_validation_error
from serve_app.contracts.job import Output
from serve_app.contracts.recipe import Recipe
from serve_app.errors import (
    InvalidMessage,
    SourceNotFound,
)
from serve_app.storage.protocol import ObjectStore


class RunManifest(Contract):
    """What was asked for in a run."""

    run_id: str
    created_at: datetime
    description: str
    """For people, such as ``s3://b/in/``."""
    output: Output
    recipe: Recipe
    jobs: int
    """Photographs that are known so far: all of them, where the list is complete."""
    queue_url: str
    complete: bool = True
    """Whether the list of the jobs is; False while it is still being made."""
    source_digest: str | None = None
    """sha256 of the manifest that the run was made from; None where it was made from none."""


def write_manifest(store: ObjectStore, ledger: LedgerConfig, manifest: RunManifest) -> None:
    """Write what was asked for in a run; blocks."""
    key = f"{run_folder(ledger, manifest.run_id)}run.json"
    store.put(ledger.bucket, key, manifest.model_dump_json().encode(), "application/json")


def read_manifest(store: ObjectStore, ledger: LedgerConfig, run_id: str) -> RunManifest:
    """Return what was asked for in a run; blocks.

    Raises:
        SourceNotFound: There is no such run.
        InvalidMessage: The manifest is not one that this version can read.
    """
    key = f"{run_folder(ledger, run_id)}run.json"
    where = f"s3://{ledger.bucket}/{key}"
    try:
        data = store.get(ledger.bucket, key)
    except SourceNotFound as error:
        raise SourceNotFound(
            f"no run {run_id!r} in this ledger ({where} does not exist): check the run's name, "
            "ledger.bucket and ledger.prefix"
        ) from error
    try:
        return RunManifest.model_validate_json(data)
    except ValidationError as error:
        raise InvalidMessage(
            f"{where} is not a manifest: {describe_validation_error(error)}"
        ) from error
