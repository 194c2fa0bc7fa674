"""``make help`` lists every target that has a description, in two columns."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_DESCRIBED = re.compile(r"^([a-z0-9-]+):.*## (.*)", re.M)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_every_description_begins_in_the_same_column() -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    targets = dict(_DESCRIBED.findall((ROOT / "Makefile").read_text()))
    width = max(map(len, targets))
    expected = [f"  make {name:{width}}  {text}" for name, text in targets.items()]
    assert [line for line in done.stdout.splitlines() if line.startswith("  make")] == expected
