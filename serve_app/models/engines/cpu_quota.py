"""The share of the processor's time that a container may use: the CPU quota of its control groups.

A container with a limit of 2 CPUs on a node with 64 cores sees 64 of them. Linux only stops its
threads for the rest of each period once they have used their share.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""Folder of the control groups. In a container it usually begins with the container's own group."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""File that names the group of this process in each hierarchy."""

_V2 = ""
_V1 = "cpu"
"""Controllers in a line of ``MEMBERSHIP``. The one hierarchy of version 2 names none."""
_V1_FOLDERS = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


def read_cpu_quota(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """Return the CPUs that the groups of this process may use, or None if nothing limits them.

    The quota of a group holds for all groups below it, so the smallest one counts.

    Args:
        cgroups: Folder of the control groups, of version 1 or 2.
        membership: File that names the group of this process.
    """
    groups = dict(_read_groups(membership))
    quotas = [_quota_v2(folder) for folder in _above(cgroups, groups.get(_V2, "/"))]
    for name in _V1_FOLDERS:
        quotas += [_quota_v1(folder) for folder in _above(cgroups / name, groups.get(_V1, "/"))]
    return min((quota for quota in quotas if quota is not None), default=None)


def _read_groups(membership: Path) -> Iterator[tuple[str, str]]:
    """Yield each controller and the path of the group that it is in."""
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            yield controller, path


def _above(root: Path, path: str) -> list[Path]:
    """Return the folder of a group and those of the groups above it.

    A container may see the path that its group has on the node, which is no folder here.
    """
    group = root / path.strip("/")
    return [root, *(each for each in (group, *group.parents) if root in each.parents)]


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """Return how many CPUs a quota is. ``max`` and -1 stand for no limit."""
    try:
        used_us, period_us = int(quota), int(period)
    except ValueError:
        return None
    return used_us / period_us if used_us > 0 and period_us > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""
