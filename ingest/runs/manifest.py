"""The manifest of a run (run.json): its output, its recipe and its number of jobs."""

from __future__ import annotations

from datetime import datetime

import orjson
from pydantic import ValidationError

from ingest.runs.folder import RunFolder
from ingest.runs.live import is_live
from serve_app.contracts.base import Contract, describe_validation_error
from serve_app.contracts.job import Output
from serve_app.contracts.recipe import Recipe
from serve_app.errors import InvalidMessage, SourceNotFound

_NAME = "run.json"


class RunManifest(Contract):
    """What a run was asked to do."""

    run_id: str
    created_at: datetime
    description: str
    """Source of the images, for people, e.g. ``s3://b/in/``."""
    output: Output
    recipe: Recipe
    jobs: int
    """Number of jobs listed so far; the number of all jobs once ``complete`` is true."""
    queue_url: str
    complete: bool = True
    """Whether every job of the run is listed. False while its source is still being read."""
    source_digest: str | None = None
    """SHA-256 of the manifest file that the run was made from. None for other sources."""


def write_manifest(folder: RunFolder, manifest: RunManifest) -> None:
    """Write the manifest of a run. Blocks."""
    content = manifest.model_dump(mode="json") | {"recipe": manifest.recipe.stored()}
    folder.write_json(_NAME, orjson.dumps(content).decode())


def read_manifest(folder: RunFolder) -> RunManifest:
    """Return the manifest of a run. Blocks.

    Raises:
        SourceNotFound: The run does not exist.
        InvalidMessage: This version cannot read the manifest.
    """
    url = folder.url(folder.key(_NAME))
    try:
        data = folder.read(_NAME)
    except SourceNotFound as error:
        raise SourceNotFound(
            f"no run {folder.run_id!r} in this ledger ({url} does not exist): check the run's "
            "name, ledger.bucket and ledger.prefix"
        ) from error
    try:
        return RunManifest.model_validate_json(data)
    except ValidationError as error:
        raise InvalidMessage(
            f"{url} is not a manifest: {describe_validation_error(error)}"
        ) from error


def manifest_of(folder: RunFolder) -> RunManifest | None:
    """Return the manifest of a run, or None for messages without a run, which have none. Blocks.

    Raises:
        SourceNotFound: The run does not exist.
        InvalidMessage: This version cannot read the manifest.
    """
    return None if is_live(folder.run_id) else read_manifest(folder)
