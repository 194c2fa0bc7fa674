"""The runs in a ledger: what they are, and the deletion of old ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ingest.messages.build import INVALID_RUN
from ingest.runs.folder import RunFolder
from ingest.runs.ledger_check import PROBE_RUN
from ingest.runs.live import LIVE_RUN, day_of_run
from ingest.runs.manifest import read_manifest
from ingest.runs.parts import part_name, part_time
from ingest.runs.status import RunMonitor, RunStatus
from serve_app.config import LedgerConfig
from serve_app.errors import InvalidMessage, SourceNotFound
from serve_app.storage.protocol import ObjectStore

_RETENTION = timedelta(days=14)
"""Longest time that SQS keeps a message. After it, no job of a run can end any more.
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html"""


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A run in the ledger."""

    folder: RunFolder
    status: RunStatus
    started_at: datetime | None
    """Time at which it was sent. None for messages that name no run, and for runs of producers."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.folder.run_id

    @property
    def last_at(self) -> datetime | None:
        """Time of its latest result, or else the time at which it was sent. None if neither is."""
        times = [at for at in (self.started_at, self.status.last_ended_at) if at is not None]
        return max(times, default=None)

    def is_over(self, now: datetime) -> bool:
        """Return whether no more results can come."""
        day = day_of_run(self.run_id)
        if day is not None:
            return now.date() - day > timedelta(days=1)
        return self.status.ended or self.last_at is None or now - self.last_at > _RETENTION


def listed_runs(
    store: ObjectStore,
    ledger: LedgerConfig,
    now: datetime,
    on_damaged: Callable[[str, InvalidMessage], None],
) -> Iterator[ListedRun]:
    """Yield the runs in a ledger by their names, which begin with their times. Blocks.

    The records of each are read.

    Args:
        store: Store of the ledger.
        ledger: Place of the ledger.
        now: The present time.
        on_damaged: Function to call with the id of a run whose manifest or part is damaged, and
            with what is wrong. The run is left out.

    Raises:
        ForeedgeError: The store refuses or does not answer.
    """
    for run_id in store.folders(ledger.bucket, f"{ledger.prefix}runs/"):
        if run_id == PROBE_RUN:
            continue
        try:
            run = _listed_run(RunFolder(store, ledger, run_id), now)
        except InvalidMessage as error:
            on_damaged(run_id, error)
        else:
            yield run


def _listed_run(folder: RunFolder, now: datetime) -> ListedRun:
    try:
        manifest = read_manifest(folder)
    except SourceNotFound:
        # Messages of other producers have results and no manifest.
        manifest = None
    monitor = RunMonitor(folder, manifest)
    try:
        status = monitor.update()
    finally:
        monitor.close()
    run = ListedRun(folder, status, None if manifest is None else manifest.created_at)
    if status.jobs is not None and not status.ended and run.is_over(now):
        run = replace(run, status=replace(status, stalled=True))
    return run


def prunable_keys(run: ListedRun, before: datetime, now: datetime) -> list[str]:
    """Return the keys of a run's objects that are to be deleted, in the order of deletion. Blocks.

    They are all of its objects if nothing has happened since a time. The manifest is the last one,
    so that a deletion that is interrupted can be repeated. The folders ``live`` of version 0.1.0
    and ``invalid`` never end: of them, they are the old parts.

    Args:
        run: The run.
        before: Time since which nothing has happened.
        now: The present time.
    """
    folder = run.folder
    keys = list(folder.store.keys(folder.bucket, folder.key("")))
    if run.run_id in (LIVE_RUN, INVALID_RUN):
        times = {key: part_time(part_name(key)) for key in keys}
        return [key for key, at in times.items() if at is not None and at < before]
    if not run.is_over(now) or (run.last_at is not None and run.last_at >= before):
        return []
    manifest = folder.key("run.json")
    return sorted(keys, key=lambda key: key == manifest)
