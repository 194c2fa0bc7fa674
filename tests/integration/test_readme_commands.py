"""The commands in the README, run in order against the demonstration that they describe."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.demonstration import START_TIMEOUT_S, clean_environment, demonstration

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """Return the code blocks of the README in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


MAKE, *COMMANDS = blocks("bash")
[SETTINGS] = [block for block in COMMANDS if "source out/demo/env" in block]
SERVED = "http://127.0.0.1:8000"
"""Address of ``foreedge serve``; a demonstration has another port."""
SNIPPETS = {
    "python": f"{sys.executable} -",
    "javascript": "node --input-type=module",
}
"""Languages of the client snippets, and the commands that run one from standard input."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run a demonstration and yield its folder."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / ".venv").symlink_to(sys.prefix)
    with demonstration(folder / ".venv/bin/foreedge", folder, count=4):
        yield folder


def test_the_first_block_is_a_target_of_the_makefile() -> None:
    [target] = re.findall(r"^make (\w+)", MAKE, re.MULTILINE)
    makefile = (README.parent / "Makefile").read_text("utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def run(folder: Path, script: str, content: str = "") -> None:
    """Run a script after the block of the README that sets the variables."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{SETTINGS}\n{script}"],
        input=content,
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{content}\n{done.stdout}\n{done.stderr}"


@pytest.mark.timeout(START_TIMEOUT_S + 200)
def test_the_commands(shelf: Path) -> None:
    for block in COMMANDS:
        run(shelf, block.replace(SERVED, "${CUTOUT_URL%/v1/cutout}"))

    report = json.loads((shelf / "out/shelf-1/report.json").read_bytes())
    assert report["counts"] == {"done": 4, "skipped_existing": 0, "failed": 0, "missing": 0}
    assert "book-00072" in (shelf / "out/shelf-1/report.html").read_text("utf-8")
    assert len(list((shelf / "out/cutouts").glob("*.png"))) == 4
    for name, mode in {"cutout.png": "RGBA", "cutout.jpg": "RGB"}.items():
        with Image.open(shelf / name) as image:
            assert image.mode == mode


@pytest.mark.parametrize("language", SNIPPETS)
def test_the_clients(shelf: Path, language: str) -> None:
    command = SNIPPETS[language]
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    [snippet] = blocks(language)
    run(shelf, command, snippet)
    with Image.open(shelf / f"from-{language}.png") as image:
        assert image.mode == "RGB"
