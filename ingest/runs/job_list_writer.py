"""A thread that lists a run's images as jobs, ahead of the thread that sends them."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator

from ingest.runs.job_list import PART_JOBS, JobList
from ingest.runs.manifest import RunManifest, write_manifest
from ingest.sources.base import Entry


class JobListWriter(threading.Thread):
    """Writes the job list of one run while another thread sends the listed jobs."""

    def __init__(
        self,
        job_list: JobList,
        read_images: Callable[[Entry | None, int], Iterator[Entry]],
        manifest: RunManifest,
    ) -> None:
        """Prepare to list; call ``start`` to begin.

        Args:
            job_list: Job list to complete; it may already have parts.
            read_images: Function that returns the images after the last listed one. It is called
                with that image, or None, and with the number of listed images.
            manifest: Manifest of the run, which is stored again each time its list grows.
        """
        super().__init__(name="job-list", daemon=True)
        self._job_list, self._read_images = job_list, read_images
        self.manifest = manifest
        self._stopping = threading.Event()
        # The number of each stored part, then None, or the error that ended the listing.
        self._parts: queue.SimpleQueue[int | Exception | None] = queue.SimpleQueue()

    def run(self) -> None:
        """List the images that are not listed yet."""
        try:
            self._complete_list()
        except Exception as error:  # noqa: BLE001 (raised again in the thread that sends)
            self._parts.put(error)

    def entries(self, after: int) -> Iterator[Entry]:
        """Yield the jobs as they are listed, except the first ``after`` ones. Blocks."""
        while (number := self._parts.get()) is not None:
            if isinstance(number, Exception):
                raise number
            if (number + 1) * PART_JOBS > after:
                yield from self._job_list.read(number)[max(0, after - number * PART_JOBS) :]

    def stop(self) -> None:
        """End the thread after the part that it is writing."""
        self._stopping.set()
        self.join()

    def _complete_list(self) -> None:
        parts = self._job_list.parts()
        last = self._job_list.read(parts - 1) if parts else []
        listed = (parts - 1) * PART_JOBS + len(last) if parts else 0
        for number in range(parts):
            self._parts.put(number)
        if not (parts and self.manifest.complete):
            entries = self._read_images(last[-1] if last else None, listed)
            # Only the last part of a list is not full, so a list that ends in one was complete.
            self._append(parts, listed, entries if listed % PART_JOBS == 0 else iter(()))
        self._parts.put(None)

    def _append(self, parts: int, listed: int, entries: Iterator[Entry]) -> None:
        """Write the remaining parts of the list.

        Args:
            parts: Number of stored parts.
            listed: Number of jobs in them.
            entries: Images that are not listed yet.
        """
        part = list(itertools.islice(entries, PART_JOBS))
        for number in itertools.count(parts):
            if part:
                self._job_list.write(number, part)
                listed += len(part)
            following = list(itertools.islice(entries, PART_JOBS)) if len(part) == PART_JOBS else []
            # The manifest is stored before any of these jobs is sent, so that it is there for
            # whoever sees their results.
            self.manifest = self.manifest.model_copy(
                update={"jobs": listed, "complete": not following}
            )
            write_manifest(self._job_list.folder, self.manifest)
            if part:
                self._parts.put(number)
            part = following
            if not part or self._stopping.is_set():
                return
