"""Public names are declared by the packages that export them, and defined once."""

from __future__ import annotations

import ast
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("serve_app", "ingest")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
DECLARING = [name for name, path in MODULES.items() if "__all__" in path.read_text("utf-8")]
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


def defined_in(module: str) -> set[str]:
    """Return the public classes and functions that a module defines."""
    found = {node.name for node in tree_of(module).body if isinstance(node, Definition)}
    return {name for name in found if not name.startswith("_")}


def passed_on_by(package: str) -> set[str]:
    """Return the names that a package imports from its own modules without any use of them."""
    tree = tree_of(package)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}.")
        for alias in node.names
    }
    return imported - {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_the_packages_that_export_names_are_known() -> None:
    assert DECLARING == ["serve_app", "serve_app.config", "serve_app.storage"]


@pytest.mark.parametrize("package", DECLARING)
def test_a_package_declares_all_that_it_exports(package: str) -> None:
    declared = import_module(package).__all__
    assert declared == sorted(declared)
    assert set(declared) == defined_in(package) | passed_on_by(package)


@pytest.mark.parametrize("package", DECLARING)
def test_every_declared_name_can_be_imported(package: str) -> None:
    module = import_module(package)
    assert [name for name in module.__all__ if getattr(module, name, None) is None] == []
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def test_no_public_name_is_defined_in_two_modules() -> None:
    modules = defaultdict(list)
    for module in MODULES:
        for name in defined_in(module):
            modules[name].append(module)
    assert {name: where for name, where in modules.items() if len(where) > 1} == {}
