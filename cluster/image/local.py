"""Build the image without a registry, by Debian's buildah, and check what was built.

python -m cluster.image.local ARCH [--required] needs root. The base is a Debian made here, since
no registry is asked. The wheels are fetched before the build, whose commands see no network.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from cluster.image.sandbox import run_read_only
from serve_app.config import AppConfig
from serve_app.models.fetch import fetch_weights

ROOT = Path(__file__).parents[2]
MODEL = "u2netp"
"""Model of the image besides the bundled one, as the Dockerfile has it."""

_FOLDER = ROOT / "out" / "image"
_SUITE = "bookworm"
_GLIBC_MINOR = 36
_DEBIAN_PACKAGES = "python3.11,python3.11-venv,libstdc++6,libgomp1,wget"
_CONTEXT = ("serve_app", "ingest", "cluster/image", "cluster/weights", "cluster/wheelhouse")
_CONTEXT_FILES = (
    "LICENSE", "README.md", "pyproject.toml", ".dockerignore", "cluster/Dockerfile",
    "requirements-build.lock", "requirements-runtime.lock", "requirements-openvino.lock",
    "requirements-heif.lock",
)  # fmt: skip
_LOCKS = ("requirements-build.lock", "requirements-runtime.lock")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Linux's names of the architectures, by those of images."""
_TOOLS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
_EMULATOR = {"qemu-aarch64-static": "qemu-user-static", "arch-test": "arch-test"}


class BuildFailed(Exception):
    """The image cannot be built, or it is not what it should be."""


@dataclass(frozen=True, slots=True)
class Builder:
    """The folder in which the image of one architecture is built."""

    arch: str
    folder: Path

    def buildah(self, *arguments: str | Path) -> str:
        """Run buildah with its own storage, and return what it prints."""
        storage = ("--root", self.folder / "storage", "--runroot", self.folder / "run")
        command: list[str | Path] = ["buildah", *storage, "--storage-driver", "vfs", *arguments]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def make_base(self) -> str:
        """Return the name of a base image: Debian with what python.org's image has of it."""
        name = f"localhost/foreedge-base:{self.arch}"
        archive = self.folder / f"base-{self.arch}.tar"
        if not archive.is_file():
            part = archive.with_suffix(".part.tar")
            options = ["--quiet", "--variant=minbase", f"--architectures={self.arch}"]
            packages = f"--include={_DEBIAN_PACKAGES}"
            subprocess.run(["mmdebstrap", *options, packages, _SUITE, str(part)], check=True)
            part.rename(archive)
        container = self.buildah("from", "--arch", self.arch, "scratch")
        self.buildah("add", "--quiet", container, archive, "/")
        self.buildah("commit", "--quiet", "--rm", container, name)
        return name

    def make_context(self) -> Path:
        """Return a folder with the files of the build, wheels and weights included."""
        wheels = self.folder / f"wheels-{self.arch}"
        for lock in _LOCKS:
            command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps"]
            options = ["--require-hashes", *self._pip_platform(), "-d", str(wheels)]
            subprocess.run([*command, *options, "-r", str(ROOT / lock)], check=True)
        context = self.folder / f"context-{self.arch}"
        shutil.rmtree(context, ignore_errors=True)
        skipped = shutil.ignore_patterns("__pycache__")
        for name in _CONTEXT:
            shutil.copytree(ROOT / name, context / name, ignore=skipped)
        for name in _CONTEXT_FILES:
            shutil.copy2(ROOT / name, context / name)
        for wheel in wheels.glob("*.whl"):
            os.link(wheel, context / "cluster" / "wheelhouse" / wheel.name)
        weights = fetch_weights(MODEL, AppConfig())
        shutil.copy2(weights, context / "cluster" / "weights" / f"{MODEL}.onnx")
        return context

    def build(self, base: str, context: Path, version: str, revision: str) -> str:
        """Build the image and return its name."""
        name = f"localhost/foreedge:{version}-{self.arch}"
        options = [
            "--isolation",
            "chroot",
            "--format",
            "docker",
            "--arch",
            self.arch,
            "--tag",
            name,
        ]
        arguments = {"BASE": base, "VERSION": version, "REVISION": revision, "MODELS": MODEL}
        # The date of the revision, so that two builds of it have the same files.
        arguments["SOURCE_DATE_EPOCH"] = _git("log", "-1", "--format=%ct") or "0"
        for key, value in arguments.items():
            options += ["--build-arg", f"{key}={value}"]
        self.buildah("bud", *options, "--file", context / "cluster" / "Dockerfile", context)
        return name

    def check(self, image: str, revision: str) -> str:
        """Run the image with a read-only root as a user that it does not know.

        Returns:
            The line with the numbers.

        Raises:
            BuildFailed: A check failed.
        """
        described = json.loads(self.buildah("inspect", "--type", "image", image))
        environment = described["OCIv1"]["config"]["Env"]
        container = self.buildah("from", "--arch", self.arch, "--pull-never", image)
        try:
            root = Path(self.buildah("mount", container))
            report = run_read_only(root, environment, self.arch)
            size = subprocess.run(["du", "-sxm", root], capture_output=True, text=True, check=True)
        finally:
            self.buildah("rm", container)
        expected = (revision, _MACHINES[self.arch], {"folio", MODEL})
        found = (report["revision"], report["architecture"], set(report["models"]))
        if found != expected or not all(m["compared"] for m in report["models"].values()):
            raise BuildFailed(f"the image is not the one that was built: {report}")
        return (
            f"{image}: {size.stdout.split()[0]} MB, smoke passed as user 12345 with a read-only "
            f"root in {sum(report['seconds'].values()):.1f} s, matting in "
            f"{report['seconds']['matting']:.1f} s"
        )

    def _pip_platform(self) -> list[str]:
        machine = _MACHINES[self.arch]
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(5, _GLIBC_MINOR + 1)]
        named = [f"manylinux{year}_{machine}" for year in ("1", "2010", "2014")]
        options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.11"]
        for abi in ("cp311", "abi3", "none"):
            options += ["--abi", abi]
        for tag in ("any", f"linux_{machine}", *named, *tags):
            options += ["--platform", tag]
        return options


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)
    return done.stdout.strip()


def missing(arch: str) -> str | None:
    """Return what this machine lacks for a build, or None."""
    foreign = _MACHINES[arch] != platform.machine()
    tools = _TOOLS | (_EMULATOR if foreign else {})
    packages = [package for program, package in tools.items() if shutil.which(program) is None]
    if packages:
        return f"apt-get install {' '.join(packages)}"
    if os.geteuid() != 0:
        return "root"
    if foreign and not Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        return "qemu-aarch64 in /proc/sys/fs/binfmt_misc (docs/operations/image.md)"
    return None


def main() -> int:
    """Return the exit code: 1 if the image was not built or fails its checks."""
    parser = argparse.ArgumentParser(description="Build and check the image without a registry.")
    parser.add_argument("arch", choices=_MACHINES, help="Architecture of the image.")
    parser.add_argument("--required", action="store_true", help="Fail if something is missing.")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="Folder of the build.")
    options = parser.parse_args()
    lacking = missing(options.arch)
    if lacking:
        print(f"SKIPPED: the build of the image needs {lacking}")
        return int(options.required)
    began = time.monotonic()
    builder = Builder(options.arch, options.folder.resolve())
    builder.folder.mkdir(parents=True, exist_ok=True)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    revision = _git("rev-parse", "HEAD") or "unknown"
    try:
        image = builder.build(builder.make_base(), builder.make_context(), version, revision)
        numbers = builder.check(image, revision)
    except (BuildFailed, subprocess.CalledProcessError) as error:
        print(f"FAILED: {error}")
        return 1
    print(f"{numbers}; built and checked in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
