"""A ledger's records for tests: outcomes, and parts written at a chosen time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from ingest.runs.folder import RunFolder
from ingest.runs.ledger import Ledger
from ingest.runs.manifest import RunManifest
from serve_app.config import LedgerConfig
from serve_app.contracts.job import Output
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.recipe import Recipe
from serve_app.storage.protocol import ObjectStore

START = datetime(2026, 1, 1, tzinfo=UTC)
LEDGER = LedgerConfig(bucket="b", part_interval_s=0.01)


def run_folder(store: ObjectStore, run_id: str = "r1") -> RunFolder:
    """Return the folder of a run in the tests' ledger."""
    return RunFolder(store, LEDGER, run_id)


def run_manifest(jobs: int, **changes: Any) -> RunManifest:
    """Return the manifest of run ``r1``."""
    fields: dict[str, Any] = {
        "run_id": "r1",
        "created_at": START,
        "description": "s3://b/in/",
        "output": Output(bucket="b"),
        "recipe": Recipe(),
        "jobs": jobs,
        "queue_url": "http://q",
    }
    return RunManifest(**(fields | changes))


def outcome(status: str, minute: int, job_id: str = "j", **fields: Any) -> Outcome:
    """Return an outcome that was recorded so many minutes after START."""
    code = "no_subject" if status == "failed" else None
    at = START + timedelta(minutes=minute)
    known: dict[str, Any] = {"status": status, "code": code, "finished_at": at} | fields
    return Outcome(job_id=job_id, run_id="r1", **known)


def write_results(store: ObjectStore, name: str, *outcomes: Outcome) -> None:
    """Write one part of results under a chosen name."""
    folder = run_folder(store)
    lines = [orjson.dumps(o.model_dump(mode="json", exclude_none=True)) for o in outcomes]
    folder.write_part(folder.part_key("results", name), lines)


def write_redriven(store: ObjectStore, name: str, minute: int, job_id: str = "j") -> None:
    """Record that the failure of a job at a minute was redriven."""
    folder = run_folder(store)
    at = (START + timedelta(minutes=minute)).timestamp()
    line = orjson.dumps({"job_id": job_id, "failed_at": at})
    folder.write_part(folder.part_key("redriven", name), [line])


def record_outcomes(store: ObjectStore, *outcomes: Outcome) -> None:
    """Write outcomes with a Ledger, as one part."""

    async def write() -> None:
        ledger = Ledger(store, LEDGER)
        await asyncio.gather(*(ledger.record(outcome) for outcome in outcomes))
        await ledger.close()

    asyncio.run(write())
