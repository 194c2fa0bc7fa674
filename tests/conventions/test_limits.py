"""The code is made of small parts: lines of a function and a module, modules of a folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ("serve_app", "ingest", "loadtests", "tests")
PACKAGES = ("serve_app", "ingest")

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 350
MAX_MODULES = 8
"""Number of modules that stand directly in a package."""


def modules() -> list[Path]:
    return [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]


def long_functions(source: str) -> Iterator[tuple[int, str, int]]:
    """Yield the line, the name and the length of each function that is too long."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield node.lineno, node.name, lines


def test_functions_are_short() -> None:
    over = [
        f"{path.relative_to(ROOT)}:{line}: {name} has {lines} lines"
        for path in modules()
        for line, name, lines in long_functions(path.read_text("utf-8"))
    ]
    assert not over, "\n".join(over)


def test_modules_are_short() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in modules()}
    over = [
        f"{path.relative_to(ROOT)} has {lines} lines"
        for path, lines in lengths.items()
        if lines > MAX_MODULE_LINES
    ]
    assert not over, "\n".join(over)


def test_packages_have_rooms_and_few_modules_of_their_own() -> None:
    found = {name: sorted(path.name for path in (ROOT / name).glob("*.py")) for name in PACKAGES}
    over = {name: files for name, files in found.items() if len(files) > MAX_MODULES}
    assert not over


def test_a_long_function_is_found() -> None:
    body = "    pass\n" * MAX_FUNCTION_LINES
    assert list(long_functions(f"class A:\n  def fits():\n{body[9:]}")) == []
    assert list(long_functions(f"x = 1\nasync def too_long():\n{body}")) == [(2, "too_long", 61)]
