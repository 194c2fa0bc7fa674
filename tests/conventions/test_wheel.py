"""The files of the wheel: every file of the two packages, and nothing else."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

from tests.support.wheel import ROOT, build_wheel


def test_the_wheel_holds_every_file_of_both_packages(tmp_path: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "serve_app", "ingest"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]

    assert sorted(names) == sorted(filter(None, tracked))
    assert {"serve_app/models/folio/folio.onnx", "serve_app/http/static/index.html"} <= set(names)
