"""Watch a run until it ends or stalls."""

from __future__ import annotations

import time
from typing import NoReturn

import typer

from ingest.cli.exit_codes import FAILED, INTERRUPTED, STALLED, SUCCESS
from ingest.cli.progress import describe_run, show_progress
from ingest.cli.terminal import open_terminal, print_json
from ingest.runs.folder import RunFolder
from ingest.runs.manifest import RunManifest
from ingest.runs.status import RunMonitor, RunStatus, end_if_stalled, follow
from ingest.sqs.backlog import Backlog, read_backlog, read_delayed
from ingest.sqs.queue_client import QueueClient
from serve_app.errors import InternalError, QueueUnavailable

_QUEUE_PAUSE_S = 60
_NEVER = -float("inf")

STALLED_AFTER = "90s"
"""Default time without messages, results and new jobs after which a run counts as stalled. SQS's
counts may be a minute late."""


def watch_run(
    folder: RunFolder,
    manifest: RunManifest,
    queue: QueueClient,
    stalled_after_s: float,
    *,
    as_json: bool = False,
) -> NoReturn:
    """Show the progress of a run until it ends, and exit with a code that says how it ended.

    Args:
        folder: Folder of the run.
        manifest: Manifest of the run.
        queue: Queue of the run.
        stalled_after_s: Seconds without messages and results after which the run is stalled.
        as_json: Whether each status is a line of JSON, without a bar.

    Raises:
        QueueUnavailable: The queue does not answer and nothing is new.
        StorageUnavailable: The ledger does not answer.
    """
    console = open_terminal(as_json=as_json)
    steps = end_if_stalled(follow(run_monitor(folder, manifest, queue)), stalled_after_s)
    last: RunStatus | None = None
    try:
        if as_json:
            for last in steps:
                print_json(last.as_dict())
        else:
            last = show_progress(console, steps, time.monotonic)
    except KeyboardInterrupt:
        console.print("Stopped watching. The run continues.")
        raise typer.Exit(INTERRUPTED) from None
    if last is None:
        raise InternalError(f"nothing is known about run {manifest.run_id}")
    if not as_json:
        console.print(describe_run(last), highlight=False)
    if last.stalled:
        raise typer.Exit(STALLED)
    raise typer.Exit(FAILED if last.counts["failed"] else SUCCESS)


def run_monitor(folder: RunFolder, manifest: RunManifest, queue: QueueClient) -> RunMonitor:
    """Return a monitor of a run that also asks its queue."""
    return RunMonitor(folder, manifest, _BacklogProbe(queue))


class _BacklogProbe:
    """Reads the backlog of a queue, with a pause of a minute while the queue is unavailable.

    A failed attempt takes long, because the client retries. Without the pause it would hold up
    every look at the run.
    """

    def __init__(self, queue: QueueClient) -> None:
        self._queue = queue
        self._failed_at_s = _NEVER
        self._error: QueueUnavailable | None = None

    def __call__(self) -> Backlog | QueueUnavailable:
        """Return the backlog, or why it is unknown."""
        if self._error is not None and time.monotonic() < self._failed_at_s + _QUEUE_PAUSE_S:
            return self._error
        try:
            found = read_backlog(self._queue)
            if not found.waiting:
                # Messages that the queue delays will come. Only an empty queue is asked for them.
                found = Backlog(read_delayed(self._queue), found.in_flight)
        except QueueUnavailable as error:
            self._error, self._failed_at_s = error, time.monotonic()
            return error
        self._error = None
        return found
