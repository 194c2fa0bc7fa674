"""The workflows of GitHub, and what actionlint and zizmor find in them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github"
TOOLS = ROOT / ".venv-deployment" / "bin"
"""Folder of the checkers, which `make check-workflows` installs."""


def workflow(name: str) -> dict[str, Any]:
    """Return a workflow. YAML 1.1 reads its key ``on`` as True."""
    content = yaml.safe_load((FOLDER / "workflows" / f"{name}.yml").read_text("utf-8"))
    assert isinstance(content, dict)
    return content


def step(name: str, job: str, title: str) -> dict[str, Any]:
    """Return the step of a job by its name."""
    [found] = [each for each in workflow(name)["jobs"][job]["steps"] if each.get("name") == title]
    assert isinstance(found, dict)
    return found


def findings(folder: Path) -> list[str]:
    """Return what both checkers find in a repository, one line for each finding."""
    files = sorted(map(str, (folder / ".github" / "workflows").glob("*.yml")))
    lint = subprocess.run(
        [TOOLS / "actionlint", "-format", "{{json .}}", *files],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert lint.returncode in (0, 1), lint.stderr
    found = [f"actionlint: {each['kind']}: {each['message']}" for each in json.loads(lint.stdout)]
    audit = subprocess.run(
        [TOOLS / "zizmor", "--offline", "--quiet", "--no-progress", "--no-exit-codes",
         "--strict-collection", "--persona=pedantic", "--format=json-v1", ".github"],
        cwd=folder,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert audit.returncode == 0, audit.stderr
    return found + [f"zizmor: {each['ident']}: {each['desc']}" for each in json.loads(audit.stdout)]
