"""The checks of the image and of arm64, on a machine that lacks what they need."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluster.image import local
from tests.arm64 import __main__ as arm64
from tests.arm64.machine import pip_platform


@pytest.mark.parametrize(
    ("check", "arguments", "packages"),
    [
        (arm64.main, [], "mmdebstrap qemu-user-static"),
        (local.main, ["amd64"], "buildah mmdebstrap"),
    ],
)
@pytest.mark.parametrize("required", [False, True])
def test_what_is_missing_is_named_and_only_skipped_if_it_may_be(
    check: object,
    arguments: list[str],
    packages: str,
    required: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["check", *arguments, *(["--required"] if required else [])])
    assert callable(check)
    assert check() == int(required)
    assert capsys.readouterr().out.endswith(f" apt-get install {packages}\n")


def test_wheels_may_be_of_any_glibc_up_to_that_of_the_image() -> None:
    tags = {option for option in pip_platform() if option.startswith("manylinux")}
    assert {"manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_36_aarch64"} <= tags
    assert "manylinux_2_37_aarch64" not in tags
