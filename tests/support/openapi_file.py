"""Write docs/openapi.json, the description of the HTTP API, unless a change would break clients.

``python -m tests.support.openapi_file`` writes the file if every change is an addition.
With ``--breaking`` it writes the file in any case.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from pathlib import Path
from typing import Any

from serve_app.http.deployment import make_api
from tests.support.api_changes import breaking_changes

OPENAPI_FILE = Path(__file__).parents[2] / "docs" / "openapi.json"
COMMAND = "python -m tests.support.openapi_file"

_API_VERSION = "1"
"""Version in the file. That of the application would change the file with every release."""


def current_description() -> dict[str, Any]:
    """Return the description that the code makes."""
    description = copy.deepcopy(make_api().openapi())
    description["info"]["version"] = _API_VERSION
    return description


def stored_description(path: Path = OPENAPI_FILE) -> dict[str, Any]:
    """Return the description in the file."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def render_description(description: dict[str, Any]) -> str:
    """Return a description as the text of the file, sorted by keys."""
    return json.dumps(description, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_description(
    description: dict[str, Any], path: Path = OPENAPI_FILE, *, breaking: bool = False
) -> list[str]:
    """Write a description, unless it breaks clients of the one in the file.

    Args:
        description: Description to write.
        path: File to write to.
        breaking: Whether to write a breaking description, too.

    Returns:
        The breaking changes that kept the description from being written.
    """
    if path.exists() and not breaking:
        changes = breaking_changes(stored_description(path), description)
        if changes:
            return changes
    path.write_text(render_description(description), "utf-8")
    return []


def main() -> int:
    """Write the file, and return the exit code of the command."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--breaking", action="store_true", help="write breaking changes, too")
    changes = write_description(current_description(), breaking=parser.parse_args().breaking)
    if changes:
        print(*changes, sep="\n")
        print(f"These changes break clients. Nothing was written. To do so: {COMMAND} --breaking")
        return 1
    print(f"Wrote {OPENAPI_FILE}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
