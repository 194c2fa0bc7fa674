"""How far a run was sent, stored while it is being sent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

from ingest.runs.job_list import PART_JOBS, JobList, Sent
from ingest.runs.job_list_writer import JobListWriter

_STORE_EVERY_S = 10.0


class Observer(Protocol):
    """A function that is called with the progress of sending a run."""

    def __call__(self, *, sent: int, listed: int, complete: bool) -> None:
        """Take note of the progress.

        Args:
            sent: Number of jobs on the queue.
            listed: Number of jobs listed so far.
            complete: Whether every job is listed.
        """


class Checkpoint:
    """The number of sent jobs: stored for each part of the list, each ten seconds and at the end.

    ``foreedge status`` counts what is not stored as not sent yet.
    """

    def __init__(
        self,
        job_list: JobList,
        writer: JobListWriter,
        sent: int,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a checkpoint, which has stored nothing yet.

        Args:
            job_list: The list of the run's jobs.
            writer: Writer of that list.
            sent: Number of jobs that were sent before.
            observer: Function to call with the progress.
            clock: Monotonic clock, in seconds.
        """
        self._job_list, self._writer, self._observer = job_list, writer, observer
        self._clock = clock
        self.sent = sent
        self._stored = -1
        self._stored_at_s = -math.inf

    def advance(self, messages: int) -> None:
        """Count messages that were sent."""
        self.sent += messages
        next_part = self.sent // PART_JOBS > self._stored // PART_JOBS
        if next_part or self._clock() - self._stored_at_s >= _STORE_EVERY_S:
            self.store()
        manifest = self._writer.manifest
        self._observer(sent=self.sent, listed=manifest.jobs, complete=manifest.complete)

    def store(self) -> None:
        """Store the number of jobs sent so far."""
        manifest = self._writer.manifest
        complete = manifest.complete and self.sent >= manifest.jobs
        self._job_list.write_sent(Sent(jobs=self.sent, complete=complete))
        self._stored, self._stored_at_s = self.sent, self._clock()
