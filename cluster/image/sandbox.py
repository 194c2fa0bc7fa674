"""Running programs of an image with a read-only root, as a user without a name. Needs root.

It is what a pod with ``readOnlyRootFilesystem`` and ``runAsUser`` gets: only the home folder, the
temporary folder and shared memory can be written to.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

USER = 12345
"""User that no file of the image belongs to."""

EMULATED_CPU = "neoverse-n1"
"""Processor of emulated programs. QEMU's own choice computes signed pointers, which is slow."""

_MOUNTS = """
set -euo pipefail
root=$1; cpuinfo=$2; shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
for folder in tmp home/foreedge; do mount -t tmpfs tmpfs "$root/$folder"; done
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
if [ -n "$cpuinfo" ]; then mount --bind "$cpuinfo" "$root/proc/cpuinfo"; fi
exec chroot --userspec="$USER_ID:$USER_ID" "$root" env -i "$@"
"""
_TOOLS = (
    "ray --version && type -p ray serve foreedge bash wget grep && "
    'touch "$HOME/.ray" /tmp/ray && ! touch /opt/foreedge/x 2>/dev/null && '
    '[ -z "$(type -p gcc cc)" ]'
)
"""What KubeRay needs, and what must not be there."""
# An emulated processor takes minutes for a mask of u2netp.
_SMOKE = ("foreedge", "smoke", "--installed", "--matting", "--timeout", "1h")

_ARM_PROCESSOR = """\
processor\t: {number}
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc \
dcpop asimddp ssbs
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""
"""A processor of a Graviton2 (Neoverse N1), as Linux describes it."""


def arm_cpuinfo(processors: int) -> str:
    """Return a ``/proc/cpuinfo`` for emulated programs, which see this machine's otherwise."""
    return "".join(_ARM_PROCESSOR.format(number=number) for number in range(processors))


def run_read_only(root: Path, environment: list[str], arch: str) -> dict[str, Any]:
    """Check the programs of an image, and return the report of its ``foreedge smoke``.

    Args:
        root: Root folder of the image.
        environment: Variables of the image, as ``NAME=value``.
        arch: Architecture of the image.

    Raises:
        CalledProcessError: A program fails, or is missing.
    """
    for shell in (("bash", "-c", _TOOLS), ("bash", "-lc", _TOOLS)):
        _run(root, environment, arch, *shell)
    report: dict[str, Any] = json.loads(_run(root, environment, arch, *_SMOKE))
    return report


def _run(root: Path, environment: list[str], arch: str, *command: str) -> str:
    with tempfile.NamedTemporaryFile("w") as cpuinfo:
        cpuinfo.write(arm_cpuinfo(1))
        cpuinfo.flush()
        # The user in the sandbox is not the one who made the file.
        Path(cpuinfo.name).chmod(0o644)
        # The mounts end with the process.
        done = subprocess.run(
            ["unshare", "--mount", "--", "bash", "-c", _MOUNTS, "sandbox", root,
             cpuinfo.name if arch == "arm64" else "", f"QEMU_CPU={EMULATED_CPU}", *environment,
             *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "USER_ID": str(USER)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )  # fmt: skip
    return done.stdout
