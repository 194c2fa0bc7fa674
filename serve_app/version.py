"""The version and the revision of this program."""

from __future__ import annotations

import os
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REVISION_VARIABLE = "IMAGE_REVISION"
"""Environment variable with the commit that a container image was built from. It has no prefix of
settings, since it is none."""


@cache
def find_version() -> str:
    """Return the version of the installed package, or of the checkout that the code runs from.

    Ray copies a ``working_dir`` to its nodes without installing it. It is ``unknown`` there if
    pyproject.toml was not copied.
    """
    try:
        return version("foreedge")
    except PackageNotFoundError:
        pass
    try:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    except FileNotFoundError:
        return "unknown"
    return str(project["project"]["version"])


def find_revision() -> str:
    """Return the commit that the container image was built from, or ``unknown`` outside of one."""
    return os.environ.get(REVISION_VARIABLE) or "unknown"
