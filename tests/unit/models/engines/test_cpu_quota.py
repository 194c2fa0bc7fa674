"""The cores that a process may use: those of its affinity, within the quota of its container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serve_app.models.engines.cpu_quota import read_cpu_quota
from serve_app.models.engines.processor import usable_cores


def groups(root: Path, files: dict[str, str], own: str = "0::/\n") -> tuple[Path, Path]:
    """Write the files of control groups, and return their folder and the file of memberships."""
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    membership = root / "own"
    membership.write_text(own)
    return root / "cgroup", membership


V1 = "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n"


@pytest.mark.parametrize(
    ("files", "own", "quota"),
    [
        ({}, "", None),
        ({"cpu.max": "max 100000"}, "0::/\n", None),
        ({"cpu.max": "200000 100000"}, "0::/\n", 2.0),
        # A node's path, which the container does not have.
        ({"cpu.max": "150000 100000"}, "0::/kubepods/pod1/abc\n", 1.5),
        # The group of a service may be wider than that of its slice, or narrower.
        (
            {"a.slice/cpu.max": "100000 100000", "a.slice/b/cpu.max": "400000 100000"},
            "0::/a.slice/b\n",
            1.0,
        ),
        (
            {"a.slice/cpu.max": "max 100000", "a.slice/b/cpu.max": "50000 100000"},
            "0::/a.slice/b\n",
            0.5,
        ),
        # The group of another process.
        ({"c.slice/cpu.max": "100000 100000"}, "0::/a.slice\n", None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, V1, None),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, V1, 2.5),
        (
            {
                "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            },
            V1,
            3.0,
        ),
        ({"cpu.max": "strange"}, "strange\n", None),
    ],
)
def test_the_smallest_quota_of_the_own_groups_counts(
    files: dict[str, str], own: str, quota: float | None, tmp_path: Path
) -> None:
    assert read_cpu_quota(*groups(tmp_path, files, own)) == quota


def test_cores_are_those_of_the_quota_rounded_up(tmp_path: Path) -> None:
    here = len(os.sched_getaffinity(0))
    expected = {"10000": 1, "100000": 1, "110000": min(2, here), "6400000": here, "max": here}
    for quota, cores in expected.items():
        folder, membership = groups(tmp_path, {"cpu.max": f"{quota} 100000"})
        assert usable_cores(folder, membership) == cores
