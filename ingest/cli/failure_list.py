"""The images of a folder that failed, as a list next to the cut-outs."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable
from pathlib import Path

from ingest.cli.terminal import original_cell, write_csv
from serve_app.errors import ForeedgeError, InvalidConfig

_NAME = "failures.csv"
_COLUMNS = ["image", "code", "message"]


class FailureList:
    """The list of one folder of cut-outs: what earlier commands left in it, and what is added.

    An image of an earlier command stays in the list until it has ended again.
    """

    def __init__(self, folder: Path) -> None:
        """Read the list that is there.

        Raises:
            InvalidConfig: A file has the name of the list and is none.
        """
        self.path = folder / _NAME
        self._earlier = _read(self.path)
        self._failed: dict[str, tuple[str, str]] = {}

    def keep_only(self, images: Iterable[str]) -> None:
        """Forget the earlier failures of other images: they are gone, or have a cut-out.

        Args:
            images: Paths within the folder of the images that are to be made.
        """
        wanted: Collection[str] = self._earlier.keys() & set(images)
        self._earlier = {name: self._earlier[name] for name in wanted}

    def ended(self, image: str, error: ForeedgeError | None) -> None:
        """Note how the work on an image ended."""
        self._earlier.pop(image, None)
        if error is not None:
            self._failed[image] = (error.code, error.message)

    def codes(self) -> list[str]:
        """Return the code of each failure since the list was read."""
        return [code for code, _ in self._failed.values()]

    def write(self) -> None:
        """Write the list, or remove the file if nothing is left in it."""
        if not (rows := {**self._earlier, **self._failed}):
            self.path.unlink(missing_ok=True)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A full disk leaves the earlier list.
        unfinished = self.path.with_name(f".{_NAME}.part")
        try:
            table = ((image, *rows[image]) for image in sorted(rows))
            write_csv(str(unfinished), _COLUMNS, table, raw=False)
            unfinished.replace(self.path)
        finally:
            unfinished.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, tuple[str, str]]:
    """Return code and message by image."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            columns, *rows = csv.reader(file)
        if columns == _COLUMNS:
            cells = (map(original_cell, row) for row in rows)
            return {image: (code, message) for image, code, message in cells}
    except FileNotFoundError:
        return {}
    except NotADirectoryError as error:
        raise InvalidConfig(f"{path.parent} is not a folder") from error
    except (ValueError, csv.Error, IsADirectoryError):
        # No text, no table, or another one.
        pass
    raise InvalidConfig(
        f"{path} is no list of failures that 'foreedge folder' has written, and would be replaced. "
        "Rename it, or choose another folder for the cut-outs"
    )
