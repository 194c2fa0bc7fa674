"""The check of a ledger before it is relied on: a probe is written, kept, and read."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import orjson

from ingest.runs.folder import RunFolder
from serve_app.config import LedgerConfig
from serve_app.errors import InvalidConfig, StorageRejected, StorageUnavailable
from serve_app.storage.protocol import ObjectStore

PROBE_RUN = ".probe"
"""Folder of the probe, next to those of the runs. Its name keeps the shape of our own keys."""

_PROBE = "probe.json"
_ABSENT = "absent.json"
_MEDIA_TYPE = "application/json"


def check_ledger(store: ObjectStore, ledger: LedgerConfig) -> None:
    """Check that records can be stored, read and missed, and writes made conditional. Blocks.

    Every process writes the same object, so that restarts leave nothing behind.

    Raises:
        InvalidConfig: The store does not support conditional writes. Two workers could replace each
            other's results and records.
        ForeedgeError: The store refuses or does not answer.
    """
    folder = RunFolder(store, ledger, PROBE_RUN)
    bucket, key = ledger.bucket, folder.key(_PROBE)
    try:
        # If the store ignores conditions, the second write succeeds although the object exists.
        ignored = all(store.put_if_absent(bucket, key, _new_probe(), _MEDIA_TYPE) for _ in range(2))
    except StorageRejected as error:
        store.put(bucket, key, _new_probe(), _MEDIA_TYPE)
        raise _no_conditions(folder.url(key), error.message) from error
    if ignored:
        raise _no_conditions(folder.url(key), "it replaces an object in spite of If-None-Match")
    store.put(bucket, key, _new_probe(), _MEDIA_TYPE)
    # Another process may have written it since, so any probe will do.
    if not folder.read(_PROBE).startswith(b'{"probe":'):
        raise StorageUnavailable(f"{folder.url(key)} was stored, but something else is read")
    # S3 denies what does not exist to a role that may not list. Consumers would then take every run
    # for one that is not cancelled.
    store.head(bucket, folder.key(_ABSENT))


def _new_probe() -> bytes:
    return orjson.dumps({"probe": uuid.uuid4().hex, "written_at": datetime.now(UTC)})


def _no_conditions(url: str, reason: str) -> InvalidConfig:
    return InvalidConfig(
        f"The store of the ledger does not support conditional writes, tried with {url}: {reason}. "
        "Use a store that supports If-None-Match, such as S3 or MinIO."
    )
