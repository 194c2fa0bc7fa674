"""Reads the photographs of a run into the list of its jobs, ahead of what sends them."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator

from ingest.runs.job_list import PART_JOBS, JobList
from ingest.runs.manifest import RunManifest, write_manifest
from ingest.sources.base import Entry


class JobListWriter(threading.Thread):
    """Reads a run's photographs into the list of its jobs, ahead of what sends them."""

    def __init__(
        self,
        jobs: JobList,
        read: Callable[[Entry | None, int], Iterator[Entry]],
        manifest: RunManifest,
    ) -> None:
        """Prepare to list.

        Args:
            jobs: The list; it may have a beginning.
            read: Returns the photographs past the last one of those that are known, given that
                and their number.
            manifest: The run's; stored again as its list grows.
        """
        super().__init__(name="listing", daemon=True)
        self._jobs, self._read = jobs, read
        self.manifest = manifest
        self._stopping = threading.Event()
        # Numbers of parts; None after the last one; or why there are no more.
        self._parts: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()

    def run(self) -> None:
        """List what is not listed yet."""
        try:
            self._list()
        except Exception as error:  # noqa: BLE001 (raised again by the one who sends)
            self._parts.put(error)

    def entries(self, after: int) -> Iterator[Entry]:
        """Yield the jobs as they are listed, from a place in the list on; blocks."""
        while (number := self._parts.get()) is not None:
            if isinstance(number, Exception):
                raise number
            if (number + 1) * PART_JOBS > after:
                yield from self._jobs.read(number)[max(0, after - number * PART_JOBS) :]

    def stop(self) -> None:
        """End after the part that is being written."""
        self._stopping.set()
        self.join()

    def _list(self) -> None:
        parts = self._jobs.parts()
        last = self._jobs.read(parts - 1) if parts else []
        listed = (parts - 1) * PART_JOBS + len(last) if parts else 0
        for number in range(parts):
            self._parts.put(number)
        if not (parts and self.manifest.complete):
            entries = self._read(last[-1] if last else None, listed)
            # Only the last part of a list is not full: that list was complete.
            self._list_on(parts, listed, entries if listed % PART_JOBS == 0 else iter(()))
        self._parts.put(None)

    def _list_on(self, parts: int, listed: int, entries: Iterator[Entry]) -> None:
        some = list(itertools.islice(entries, PART_JOBS))
        for number in itertools.count(parts):
            if some:
                self._jobs.write(number, some)
                listed += len(some)
            more = list(itertools.islice(entries, PART_JOBS)) if len(some) == PART_JOBS else []
            # Before any of these is sent: whoever sees a result can tell what it is one of.
            self.manifest = self.manifest.model_copy(update={"jobs": listed, "complete": not more})
            write_manifest(self._jobs.store, self._jobs.ledger, self.manifest)
            if some:
                self._parts.put(number)
            some = more
            if not some or self._stopping.is_set():
                return
