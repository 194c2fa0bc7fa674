"""The wheel, installed outside of the checkout, does what the checkout does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.demonstration import START_TIMEOUT_S, clean_environment, demonstration
from tests.support.wheel import build_wheel, install_wheel


@pytest.mark.slow
@pytest.mark.timeout(START_TIMEOUT_S + 200)
def test_an_installed_wheel_runs_the_demonstration_and_serves_the_page(tmp_path: Path) -> None:
    (tmp_path / "wheel").mkdir()
    programs = install_wheel(build_wheel(tmp_path / "wheel"), tmp_path / "environment")
    empty = tmp_path / "empty"
    empty.mkdir()

    where = "import serve_app, ingest; print(serve_app.__file__, ingest.__file__)"
    imported = subprocess.run(
        [programs / "python", "-c", where],
        cwd=empty,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert all(Path(path).is_relative_to(programs.parent) for path in imported), imported

    with demonstration(programs / "foreedge", empty, count=2) as settings:
        [address] = re.findall(r"CUTOUT_URL=(http://[^/]+)/", settings.read_text())
        page = httpx.get(f"{address}/")
        assert page.status_code == 200
        assert "<title>" in page.text
        assets = re.findall(r'(?:src|href)="(page/[\w.]+)"', page.text)
        assert assets
        for asset in assets:
            assert httpx.get(f"{address}/{asset}").status_code == 200, asset
    cutouts = list((empty / "out/demo/cutouts").rglob("*.png"))
    assert len(cutouts) == 2
    assert (empty / "out/demo/report.html").is_file()
