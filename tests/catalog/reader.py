"""A reader of the pages about catalogs and queues, with the programs that the pages ask for.

``foreedge`` and ``python3`` are the real ones, and ``aws`` is the stand-in of tests/deployment for
the AWS CLI, whose calls reach a local AWS.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from ingest.local.aws import LocalAws
from ingest.local.ports import free_port

ROOT = Path(__file__).parents[2]
REGION = "us-east-1"
"""The region of LocalAws."""
_AWS = ROOT / "tests" / "deployment" / "programs" / "aws.py"
_CLONED = ("docs", "ingest", "serve_app", ".git")


def clone(folder: Path) -> Path:
    """Make what the pages use of a clone of the repository in a folder, and return the folder."""
    for name in _CLONED:
        (folder / name).symlink_to(ROOT / name)
    # A command writes files into it.
    ignored = shutil.ignore_patterns("__pycache__", "wheelhouse", "weights")
    shutil.copytree(ROOT / "cluster", folder / "cluster", ignore=ignored, symlinks=True)
    return folder


def environment_of(folder: Path, aws: LocalAws) -> dict[str, str]:
    """Put the programs into a folder, and return the environment in which they are found."""
    programs = folder / "bin"
    programs.mkdir()
    real = Path(sys.prefix) / "bin"
    # Port 8000 may be in use on this machine.
    serve = f'[ "$1" = serve ] && set -- "$@" --port {free_port()}\n'
    _write(programs / "foreedge", f'{serve}exec {real}/foreedge "$@"')
    _write(programs / "aws", f'exec {sys.executable} {_AWS} "$@"')
    (programs / "python3").symlink_to(real / "python3")
    kept = {name: each for name, each in os.environ.items() if not name.startswith("FOREEDGE_")}
    return kept | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "AWS_ENDPOINT_URL": aws.endpoint_url,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _write(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
