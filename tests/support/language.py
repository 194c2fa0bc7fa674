"""Check prose against the language guide in CONTRIBUTING.md.

``python -m tests.support.language [PATH ...]`` lists every finding below the paths.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
CODE = ("serve_app", "ingest", "loadtests", "tests")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs")
_LEAST_WORDS = 3

_WORDS = {
    "again": r"\banew\b",
    "indefinitely": r"\bfor ever\b",
    "cancel": r"\bcall(?:s|ed|ing)? off\b",
    "resume or continue": r"\b(?:go|goes|going|went|gone) on\b",
    "fix": r"\bmend(?:s|ed|ing)?\b",
    "report or say": r"\b(?:tell|tells|telling|told)\b",
    "next to, alongside or compared with": r"\bbeside\b",
    "unavailable": r"\b(?:is|are|was|were|be|been) away\b",
    "image": r"\b[Pp]ictures?\b",
    "if, when or unless": (
        r"(?:^|[.;:(] |\b(?:only|even|also|except|and|or|but|none|nothing|empty|true|false|\d+) )"
        r"where (?!to\b)"
        r"|\bwhere (?:there|no|none|nothing|nobody|neither|it (?:is|was|has|can|does|fails|needs)|"
        r"they (?:are|were|have|can|do)|that (?:is|was|has|fails)|this (?:is|was))\b"
    ),
}
"""What to write instead, and a pattern of what not to write."""

_PHOTOGRAPH = re.compile(r"\bphotographs?\b", re.IGNORECASE)
_PHOTOGRAPHS_ALLOWED = ("serve_app/models/folio", "ingest/local/photographs", "ingest/cli/demo")
"""Modules about the synthetic photographs of the demonstration and of folio's training."""

_FRAGMENT_STARTS = re.compile(
    r"(?:Of|That|Where|Told|Is told|In which|To which|By which|From which|With which|At which|"
    r"On which|Over which|For which|Between|Past|Its|Their|They|Those that)\b"
)
_ARGUMENT = re.compile(r"\s{4,}(\*{0,2}\w+): (.+)")
_SECTIONS = ("Args:", "Attributes:")


class Finding(NamedTuple):
    """One place that breaks a rule."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


def check_code(path: Path) -> Iterator[Finding]:
    """Yield the findings in a module's docstrings, comments and, outside of tests, messages."""
    name = path.relative_to(ROOT).as_posix()
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    docstrings = set()
    for node, kind in _docstrings(tree):
        docstrings.add(id(node))
        text = str(node.value)
        yield from _check_words(name, node.lineno, text)
        first = text.strip().split("\n\n", 1)[0]
        if ";" in first and "``" not in first:
            yield Finding(name, node.lineno, "one fact in a first sentence", _one_line(first))
        if kind == "attribute" and _FRAGMENT_STARTS.match(text):
            yield Finding(name, node.lineno, "a whole noun phrase", _one_line(text))
        yield from _check_arguments(name, node.lineno, text)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from _check_words(name, token.start[0], token.string.lstrip("# "))
    if name.startswith("tests/"):
        return
    for part in ast.walk(tree):
        if not isinstance(part, ast.Constant) or id(part) in docstrings:
            continue
        if isinstance(part.value, str) and len(part.value.split()) >= _LEAST_WORDS:
            yield from _check_words(name, part.lineno, part.value)


def check_document(path: Path) -> Iterator[Finding]:
    """Yield the findings in the prose of a Markdown file; code is left out."""
    name = path.relative_to(ROOT).as_posix()
    fenced = False
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield from _check_words(name, number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line))


def semicolon_share(path: Path) -> float:
    """Return the share of a document's sentences that have a semicolon."""
    prose = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    prose = re.sub(r"`[^`]*`", "", prose)
    sentences = [text for text in re.split(r"(?<=[.?!:])\s+|\n\n|\n[-|#]", prose) if text.strip()]
    return sum(";" in text for text in sentences) / max(1, len(sentences))


def code_files() -> list[Path]:
    """Return every module that the guide holds for."""
    found = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if path != Path(__file__)]


def documents() -> list[Path]:
    """Return every document that the guide holds for."""
    found: list[Path] = []
    for name in DOCUMENTS:
        path = ROOT / name
        found += sorted(path.rglob("*.md")) if path.is_dir() else [path] * path.exists()
    return found


def findings() -> list[Finding]:
    """Return all findings, by file and line."""
    found = [item for path in code_files() for item in check_code(path)]
    return found + [item for path in documents() for item in check_document(path)]


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.Constant, str]]:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for position, item in enumerate(body):
            if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant)):
                continue
            if isinstance(item.value.value, str):
                owns = position == 0 and not isinstance(node, ast.If)
                yield item.value, "own" if owns else "attribute"


def _check_arguments(name: str, line: int, text: str) -> Iterator[Finding]:
    inside = False
    for offset, row in enumerate(text.splitlines()):
        if row.strip() in _SECTIONS:
            inside = True
        elif row.strip().endswith(":") and not _ARGUMENT.match(row):
            inside = False
        elif inside and (found := _ARGUMENT.fullmatch(row)) and _FRAGMENT_STARTS.match(found[2]):
            yield Finding(name, line + offset, "a whole noun phrase", row.strip())


def _check_words(name: str, line: int, text: str) -> Iterator[Finding]:
    for offset, row in enumerate(text.splitlines()):
        for instead, pattern in _WORDS.items():
            if re.search(pattern, row, re.IGNORECASE):
                yield Finding(name, line + offset, instead, row.strip())
        if _PHOTOGRAPH.search(row) and not name.startswith((*_PHOTOGRAPHS_ALLOWED, "tests/")):
            yield Finding(name, line + offset, "image", row.strip())


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    wanted = tuple(sys.argv[1:])
    shown = [item for item in findings() if not wanted or item.path.startswith(wanted)]
    for item in shown:
        print(item)
    print(f"{len(shown)} findings")
