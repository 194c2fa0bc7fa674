"""The application from a copy of the code, as Ray lays a ``working_dir`` on its nodes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_IMPORT = "from serve_app.app import build; from serve_app.http.deployment import make_api; "
_PRINT = "print(make_api().version)"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all libraries except the distribution of Foreedge itself."""
    folder = tmp_path_factory.mktemp("libraries")
    for item in Path(sysconfig.get_path("purelib")).iterdir():
        # An editable installation is a .pth file.
        if not item.name.startswith(("foreedge", "_foreedge")) and item.suffix != ".pth":
            (folder / item.name).symlink_to(item)
    return folder


@pytest.mark.parametrize("with_project", [True, False])
def test_the_application_is_imported_without_an_installed_distribution(
    libraries: Path, with_project: bool, tmp_path: Path
) -> None:
    for package in ("serve_app", "ingest"):
        shutil.copytree(ROOT / package, tmp_path / package)
    if with_project:
        shutil.copy(ROOT / "pyproject.toml", tmp_path)
    found = subprocess.run(
        # -S: the libraries of this interpreter, with the distribution, stay out.
        [sys.executable, "-S", "-c", _IMPORT + _PRINT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(libraries)])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    version = found.stdout.strip()
    declared = f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert declared if with_project else version == "unknown"
