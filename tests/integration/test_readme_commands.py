"""The README's commands, run one after the other against the demonstration that they speak of."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

README = Path(__file__).parents[2] / "README.md"
START_TIMEOUT_S = 200
STOP_TIMEOUT_S = 60


def blocks(language: str) -> list[str]:
    """Return the README's blocks of code in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


BLOCKS = blocks("bash")
SNIPPETS = {
    "python": f"{sys.executable} -",
    "javascript": "node --input-type=module",
}
"""Languages of the clients, and what runs a snippet that it reads."""


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of a demonstration that keeps running."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / ".venv").symlink_to(sys.prefix)
    output = folder / "demo.log"
    with output.open("wb") as log:
        demo = subprocess.Popen(
            [folder / ".venv/bin/foreedge", "demo", "--keep", "--count", "3"],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    environment = folder / "out" / "demo" / "env"
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while not environment.exists():
            assert demo.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.5)
        yield folder
        started = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(STOP_TIMEOUT_S) == 0, output.read_text()
        _, alive = psutil.wait_procs(started, timeout=STOP_TIMEOUT_S)
        assert alive == []
        assert not environment.exists()
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(STOP_TIMEOUT_S)


def test_the_first_block_is_what_the_makefile_knows() -> None:
    targets = re.findall(r"^make (\w+)", BLOCKS[0], re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (README.parent / "Makefile").read_text("utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def run(folder: Path, script: str, content: str = "") -> None:
    """Run a script as the README does, after the block with its settings."""
    environment = {name: value for name, value in os.environ.items() if "AWS" not in name}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{BLOCKS[1]}\n{script}"],
        input=content,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{content}\n{done.stdout}\n{done.stderr}"


@pytest.mark.timeout(START_TIMEOUT_S + 200)
def test_the_commands(shelf: Path) -> None:
    for block in BLOCKS[2:]:
        run(shelf, block)

    report = json.loads((shelf / "out/shelf-1/report.json").read_bytes())
    assert report["counts"] == {"done": 3, "skipped_existing": 0, "failed": 0, "missing": 0}
    assert "book-00072" in (shelf / "out/shelf-1/report.html").read_text("utf-8")
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
