"""No count is read before an await and written after it, which would undo what happens meanwhile.

``self.count += await call()`` reads the count first. Of two such calls at the same time, one is
not counted.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("serve_app", "ingest", "loadtests")


def lost_updates(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each statement that reads, awaits and writes one thing."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AugAssign) and not isinstance(node.target, ast.Name):
            if _awaits(node.value):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Assign) and _awaits(node.value):
            targets = {ast.unparse(target) for target in node.targets}
            read = {
                ast.unparse(part)
                for part in ast.walk(node.value)
                if isinstance(part, ast.Attribute | ast.Subscript)
            }
            if targets & read:
                yield node.lineno, ast.unparse(node)


def _awaits(value: ast.expr) -> bool:
    return any(isinstance(part, ast.Await) for part in ast.walk(value))


def test_no_update_is_lost_to_an_await() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in lost_updates(path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("statement", "lost"),
    [
        ("self.n += await f()", True),
        ("self.counts['n'] += (await f()).n", True),
        ("self.n = self.n + await f()", True),
        ("n += await f()", False),  # a local variable belongs to one task
        ("self.n = await f(self.m)", False),
        ("m = await f(); self.n += m", False),
    ],
)
def test_an_update_that_is_lost_is_found(statement: str, lost: bool) -> None:
    source = f"async def g(self, n):\n    {statement}\n"
    assert bool(list(lost_updates(source))) is lost
