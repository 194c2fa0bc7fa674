"""Photographs for load tests: synthetic ones of known sizes, kept on disk, or a folder of yours.

``python -m loadtests.harness.corpus [SET ...]`` makes the sets that are named, or all.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ingest.local.photographs import make_photographs
from ingest.sources.folder import image_files
from serve_app.errors import InvalidConfig

FOLDER = Path("out/bench/corpus")

SETS: dict[str, tuple[tuple[int, int], ...]] = {
    "small": ((640, 480),),
    "1600x1200": ((1600, 1200),),
    "12mp": ((4000, 3000),),
    # What a dealer's collection is like: most of one camera, some upright, a few large, old ones.
    "mixed": (
        (1600, 1200),
        (1200, 1600),
        (640, 480),
        (1600, 1200),
        (2400, 1800),
        (1024, 768),
        (1600, 1200),
        (4000, 3000),
    ),
}
"""Widths and heights in pixels of the photographs of each set, which follow each other in turn."""

_SEED = 70_000
"""Far from the seeds of training, tests and demonstration."""


def corpus(name: str, count: int, folder: Path = FOLDER) -> list[Path]:
    """Return photographs; the same name and count give the same ones.

    Args:
        name: Of a set, or a folder with images.
        count: How many; a folder that has fewer is gone through again from its start.
        folder: Where sets are kept; what is there is not drawn again.

    Raises:
        InvalidConfig: There is no such set or folder, or the folder has no images.
    """
    if name in SETS:
        return make_photographs(folder / name, count, _SEED, sizes=SETS[name], keep=True)
    if not Path(name).is_dir():
        raise InvalidConfig(f"{name!r} is neither a folder nor one of {', '.join(SETS)}")
    found, _ = image_files(Path(name))
    if not found:
        raise InvalidConfig(f"{name} holds no images")
    return [found[i % len(found)] for i in range(count)]


def main() -> None:
    """Make the sets that are named on the command line, or all."""
    for name in sys.argv[1:] or SETS:
        paths = corpus(name, 24)
        size_mb = sum(path.stat().st_size for path in paths) / 1e6
        print(f"{name}: {len(paths)} photographs, {size_mb:.1f} MB, {paths[0].parent}")


if __name__ == "__main__":
    main()
