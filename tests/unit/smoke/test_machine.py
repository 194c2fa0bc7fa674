"""What is known about the CPU, and what its files have to do with a crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.smoke.machine import cpu_features, explain_crash

ARM = (
    "processor\t: 0\nFeatures\t: fp asimd aes asimddp bf16\nCPU implementer\t: 0x41\n"
    "CPU part\t: 0xd4f\n\nprocessor\t: 1\nFeatures\t: fp sve\n"
)
X86 = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\n"
    "flags\t\t: fpu avx2 avx512_bf16 avx512_fp16 amx_tile amx_bf16\n"
)


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Path:
    return tmp_path / "cpuinfo"


@pytest.mark.parametrize(
    ("text", "features"),
    [(ARM, ["asimddp", "bf16"]), (X86, ["amx_bf16", "avx2", "avx512_bf16", "avx512_fp16"])],
)
def test_the_features_that_choose_kernels_are_those_of_the_first_processor(
    cpuinfo: Path, text: str, features: list[str]
) -> None:
    cpuinfo.write_text(text)
    assert cpu_features(cpuinfo) == features


def test_a_machine_without_cpuinfo_has_no_known_features(cpuinfo: Path) -> None:
    assert cpu_features(cpuinfo) == []


def test_a_crash_without_cpuinfo_is_explained(cpuinfo: Path) -> None:
    reason = explain_crash(cpuinfo, "aarch64")
    assert reason.startswith(f"{cpuinfo} cannot be read (No such file or directory)")
    assert "Mount /proc" in reason


def test_the_cpuinfo_of_another_architecture_is_named(cpuinfo: Path) -> None:
    cpuinfo.write_text(X86)
    assert "does not describe an arm64 CPU" in explain_crash(cpuinfo, "aarch64")


@pytest.mark.parametrize(("machine", "text"), [("aarch64", ARM), ("x86_64", X86)])
def test_a_right_cpuinfo_is_not_blamed(cpuinfo: Path, machine: str, text: str) -> None:
    cpuinfo.write_text(text)
    assert "that is not the reason" in explain_crash(cpuinfo, machine)
