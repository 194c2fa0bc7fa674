"""Images for load tests: synthetic ones of known sizes, or a folder of real ones.

``python -m loadtests.harness.corpus [SET ...]`` draws the named sets, or all of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ingest.local.photographs import make_photographs
from ingest.sources.folder import image_files
from serve_app.errors import InvalidConfig

FOLDER = Path("out/bench/corpus")

SETS: dict[str, tuple[tuple[int, int], ...]] = {
    "small": ((640, 480),),
    "1600x1200": ((1600, 1200),),
    "12mp": ((4000, 3000),),
    # A dealer's collection: most images from one camera, some upright, a few large, some old.
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
"""Widths and heights, in pixels, that the images of each set have in turn."""

_SEED = 70_000
"""First seed, far from the seeds of training, tests and demonstration."""

IMAGES_OF_A_SET = 24
"""Number of images of a set that load tests use."""


def corpus(name: str, count: int, folder: Path = FOLDER) -> list[Path]:
    """Return image files. The same name and count always give the same files.

    Args:
        name: Name of a set, or path of a folder with images.
        count: Number of files. A folder that has fewer is repeated from its start.
        folder: Folder that keeps the drawn sets. Files that it already has are not drawn again.

    Raises:
        InvalidConfig: There is no such set or folder, or the folder has no images.
    """
    if name in SETS:
        return make_photographs(folder / name, count, _SEED, sizes=SETS[name], keep=True)
    if not Path(name).is_dir():
        raise InvalidConfig(f"{name!r} is neither a folder nor one of {', '.join(SETS)}")
    found, _ = image_files(Path(name))
    if not found:
        raise InvalidConfig(f"the folder {name} has no images")
    return [found[i % len(found)] for i in range(count)]


def main() -> None:
    """Draw the sets that the command line names, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.harness.corpus", description="Draw sets of synthetic images."
    )
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)} (default: all)")
    names = parser.parse_args().sets or list(SETS)
    if unknown := sorted(set(names) - set(SETS)):
        parser.error(f"unknown sets: {', '.join(unknown)}")
    for name in names:
        paths = corpus(name, IMAGES_OF_A_SET)
        size_mb = sum(path.stat().st_size for path in paths) / 1e6
        print(f"{name}: {len(paths)} images, {size_mb:.1f} MB, {paths[0].parent}")


if __name__ == "__main__":
    main()
