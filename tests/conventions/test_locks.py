"""The lock of what runs in production is a part of the lock of what runs in the tests."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]

_PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?P<rest>(?:.*\\\n)*.*)", re.MULTILINE)
_MARKER = re.compile(r";\s*(?P<marker>.+?)\s*\\?$", re.MULTILINE)


class Lock:
    """The packages of a lock file."""

    def __init__(self, name: str) -> None:
        self.pins: dict[str, tuple[str, frozenset[str]]] = {}
        """Version and hashes of each package."""
        self.requirements: list[Requirement] = []
        text = re.sub(r"^ +#.*\n", "", (ROOT / name).read_text("utf-8"), flags=re.MULTILINE)
        for pin in _PIN.finditer(text):
            package, version, rest = pin["name"], pin["version"], pin["rest"]
            marker = _MARKER.search(rest.splitlines()[0])
            hashes = frozenset(re.findall(r"sha256:[0-9a-f]{64}", rest))
            self.pins[f"{package}=={version}"] = (version, hashes)
            condition = f" ; {marker['marker']}" if marker else ""
            self.requirements.append(Requirement(f"{package}=={version}{condition}"))

    def names_here(self) -> set[str]:
        """Return the packages that this machine needs."""
        return {
            canonicalize_name(requirement.name)
            for requirement in self.requirements
            if requirement.marker is None or requirement.marker.evaluate()
        }


def reachable(requirements: list[Requirement]) -> set[str]:
    """Return the packages that requirements lead to on this machine, by the installed metadata."""
    found: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, asking_extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": asking_extra}):
            continue
        for extra in ("", *requirement.extras):
            key = (canonicalize_name(requirement.name), extra)
            if key not in found:
                found.add(key)
                needs = requires(requirement.name) or []
                waiting += [(Requirement(need), extra) for need in needs]
    return {name for name, _ in found}


ADDED = {"openvino": "requirements-openvino.lock", "pi-heif": "requirements-heif.lock"}
"""What may be added to an image, and the file with what it needs besides the runtime."""
INSTALLED = ("requirements-runtime.lock", *ADDED.values())
"""What runs in production, and what may be added to it."""


@pytest.mark.parametrize("name", INSTALLED)
def test_a_lock_of_production_has_the_versions_and_hashes_of_the_tests(name: str) -> None:
    runtime, tests = Lock(name), Lock("requirements.lock")
    assert runtime.pins
    differ = {name for name, pin in runtime.pins.items() if tests.pins.get(name) != pin}
    assert not differ, "make lock writes both files"


def test_the_runtime_lock_is_what_the_project_needs_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    # One image serves queues with and without catalog jobs.
    texts = [*project["dependencies"], *project["optional-dependencies"]["catalog"]]
    needed = reachable([Requirement(text) for text in texts])
    assert Lock("requirements-runtime.lock").names_here() == needed, "make lock writes the file"


@pytest.mark.parametrize("package", ADDED)
def test_two_locks_of_production_are_what_an_addition_needs(package: str) -> None:
    names = ("requirements-runtime.lock", ADDED[package])
    both = set().union(*(Lock(name).names_here() for name in names))
    assert reachable([Requirement(package)]) <= both, "make lock writes the file"


@pytest.mark.parametrize("name", INSTALLED)
def test_every_package_of_a_lock_of_production_has_hashes(name: str) -> None:
    assert all(hashes for _, hashes in Lock(name).pins.values())
