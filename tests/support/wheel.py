"""The wheel of this checkout, and an environment that has nothing else of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build_wheel(folder: Path) -> Path:
    """Build the wheel into an empty folder and return its path."""
    # hatchling is in the lock. An environment that is older than that needs pip's own copy.
    locked = importlib.util.find_spec("hatchling") is not None
    isolation = ["--no-build-isolation"] if locked else []
    _pip("wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(ROOT))
    [wheel] = folder.glob("*.whl")
    return wheel


def install_wheel(wheel: Path, folder: Path) -> Path:
    """Install a wheel into a new environment and return the environment's ``bin`` folder.

    The environment finds the dependencies, and not the checkout, in the site-packages of this
    interpreter: Python runs the ``.pth`` files of an environment's own folder only.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    interpreter = folder / "bin" / "python"
    _pip("--python", str(interpreter), "install", "--no-deps", str(wheel))
    ours = sysconfig.get_path("purelib", vars={"base": str(folder)})
    (Path(ours) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return interpreter.parent


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
