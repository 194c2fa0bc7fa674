"""The cut-outs of a demonstration as files, each written once its result is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ingest.local.cutout_files import file_names, write_cutout
from ingest.runs.records import Record
from ingest.runs.status import RunStatus
from serve_app.storage.protocol import ObjectStore

_DOWNLOAD_THREADS = 8


class CutoutFiles:
    """The files of the cut-outs in a folder, named after their images."""

    def __init__(self, store: ObjectStore, folder: Path, images: dict[str, str]) -> None:
        """Begin without files.

        Args:
            store: The object store of the results.
            folder: Folder of the files.
            images: Path of each image within its folder, by the key of its object.
        """
        self._store, self._folder = store, folder
        self._names = dict(zip(images, file_names(images.values()), strict=True))
        # The last record of each image: a job that was delivered twice has two.
        self._recorded: dict[str, Record] = {}
        self._written: set[str] = set()

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._written)

    def note(self, record: Record) -> None:
        """Remember the record of a job, whose cut-out ``write`` writes if there is one."""
        if record.get("output_key"):
            self._recorded[record["source"]["key"]] = record

    def write(self) -> None:
        """Write the cut-outs that were recorded since the last call. Blocks.

        Raises:
            ForeedgeError: The store refuses or does not answer.
            OSError: A file cannot be written.
        """
        recorded, self._recorded = self._recorded, {}
        if recorded:
            with ThreadPoolExecutor(_DOWNLOAD_THREADS, "download") as pool:
                self._written.update(pool.map(self._write, recorded.values()))

    def written(self, steps: Iterator[RunStatus]) -> Iterator[RunStatus]:
        """Yield the statuses of the run, each after the cut-outs that it counts are written."""
        for now in steps:
            self.write()
            yield now

    def _write(self, record: Record) -> str:
        """Write one cut-out and return its name."""
        name = self._names[record["source"]["key"]]
        data = self._store.get(record["output_bucket"], record["output_key"])
        write_cutout(self._folder / name, data)
        return name
