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
"""Number of words that make a string a message."""

_START = r"(?:\A|[.;:]\s+|\(|\n\s*\n\s*|\n\s*[-*>]\s+|\|\s+)"
"""The start of a sentence, a paragraph, a list item or a table cell."""

_WORDS = {
    "again": r"\banew\b",
    "indefinitely": r"\bfor\s+ever\b",
    "cancel": r"\bcall(?:s|ed|ing)?\s+off\b",
    "resume or continue": r"\b(?:go|goes|going|went|gone)\s+on\b",
    "fix": r"\bmend(?:s|ed|ing)?\b",
    "report or say": r"\b(?:tell|tells|telling|told)\b",
    "next to, alongside or compared with": r"\bbeside\b",
    "unavailable": r"\b(?:is|are|was|were|be|been|stays?)\s+away\b",
    "image": r"\bpictures?\b",
    "if, when or unless": (
        rf"(?:{_START}|\b(?:only|even|also|except|and|or|but|none|nothing|empty|true|false|\d+)\s)"
        r"\s*where\s+(?=\w)(?!to\b)"
        r"|(?<!know )(?<!knows )(?<!from )(?<!of )"
        r"\bwhere\s+(?:there|no|none|nothing|nobody|neither"
        r"|it\s+(?:is|was|has|can|does|fails|needs)|they\s+(?:are|were|have|can|do)"
        r"|that\s+(?:is|was|has|fails)|this\s+(?:is|was))\b"
    ),
}
_DIALECT = {word: re.compile(pattern, re.IGNORECASE) for word, pattern in _WORDS.items()}
"""What to write instead, and a pattern of what not to write."""

_PHOTOGRAPH = re.compile(r"(?<!synthetic )\bphotographs?\b", re.IGNORECASE)
_PHOTOGRAPHS_ALLOWED = (
    "tests/",
    "serve_app/models/folio",
    "ingest/local/photographs",
    "ingest/cli/demo",
)
"""Modules about the synthetic photographs of the demonstration and of folio's training."""

_FRAGMENT = re.compile(
    r"(?:Of|By|In|On|With|Without|From|To|Over|For|Between|Past|After|Before|Since|Within|Among"
    r"|That|Where|Which|Who|Whose|Told|Is|Are|Was|Has|Have|Its|Their|They|Those that)\b"
)
"""Starts of a description that is the end of an unsaid sentence."""

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


def check_module(name: str, source: str) -> Iterator[Finding]:
    """Yield the findings in a module's docstrings, comments and, except in tests, messages."""
    tree = ast.parse(source)
    docstrings = set()
    for node, kind in _docstrings(tree):
        docstrings.add(id(node))
        text = str(node.value)
        yield from _check_words(name, node.lineno, text)
        first = text.strip().split("\n\n", 1)[0]
        if ";" in first and "``" not in first:
            yield Finding(name, node.lineno, "one fact in a first sentence", _one_line(first))
        if kind == "attribute" and _FRAGMENT.match(text):
            yield Finding(name, node.lineno, "a whole noun phrase", _one_line(text))
        yield from _check_arguments(name, node.lineno, text)
    for line, text in _comments(source):
        yield from _check_words(name, line, text)
    if name.startswith("tests/"):
        return
    for part in ast.walk(tree):
        if not isinstance(part, ast.Constant) or id(part) in docstrings:
            continue
        if isinstance(part.value, str) and len(part.value.split()) >= _LEAST_WORDS:
            yield from _check_words(name, part.lineno, part.value)


def check_document(name: str, text: str) -> Iterator[Finding]:
    """Yield the findings in the prose of a Markdown file."""
    yield from _check_words(name, 1, _prose(text))


def semicolon_share(text: str) -> float:
    """Return the share of a Markdown file's sentences that have a semicolon."""
    sentences = re.split(r"(?<=[.?!:])\s+|\n\s*\n|\n\s*[-*|#]", re.sub(r"&\w+;", "", _prose(text)))
    sentences = [sentence for sentence in sentences if sentence.strip()]
    return sum(";" in sentence for sentence in sentences) / max(1, len(sentences))


def modules() -> list[Path]:
    """Return every module that the guide applies to."""
    return [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]


def documents() -> list[Path]:
    """Return every document that the guide applies to."""
    found: list[Path] = []
    for name in DOCUMENTS:
        path = ROOT / name
        found += sorted(path.rglob("*.md")) if path.is_dir() else [path] * path.exists()
    return found


def findings() -> list[Finding]:
    """Return all findings, by file."""
    found: list[Finding] = []
    for paths, check in ((modules(), check_module), (documents(), check_document)):
        for path in paths:
            found += check(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    return found


def _docstrings(tree: ast.Module) -> Iterator[tuple[ast.Constant, str]]:
    """Yield the docstrings of the module, its definitions ("own") and its "attribute"s."""
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


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield each comment with its first line. Comments on consecutive lines are one text."""
    first, rows = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if rows and line != first + len(rows):
            yield first, "\n".join(rows)
            rows = []
        first = first if rows else line
        rows.append(token.string.lstrip("# "))
    if rows:
        yield first, "\n".join(rows)


def _prose(text: str) -> str:
    """Return the prose of a Markdown text, in which each line keeps its number."""
    for code in (r"```.*?```", r"<!--.*?-->", r"`[^`]*`", r"\]\([^)]*\)"):
        text = re.sub(code, lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    return text


def _check_arguments(name: str, line: int, text: str) -> Iterator[Finding]:
    inside = False
    for offset, row in enumerate(text.splitlines()):
        if row.strip() in _SECTIONS:
            inside = True
        elif row.strip().endswith(":") and not _ARGUMENT.match(row):
            inside = False
        elif inside and (found := _ARGUMENT.fullmatch(row)) and _FRAGMENT.match(found[2]):
            yield Finding(name, line + offset, "a whole noun phrase", row.strip())


def _check_words(name: str, line: int, text: str) -> Iterator[Finding]:
    rules = dict(_DIALECT)
    if not name.startswith(_PHOTOGRAPHS_ALLOWED):
        rules["image (input), not photograph"] = _PHOTOGRAPH
    rows = text.splitlines()
    for instead, pattern in rules.items():
        # The last character of a match is in the line with the word.
        offsets = {text.count("\n", 0, found.end() - 1) for found in pattern.finditer(text)}
        for offset in sorted(offsets):
            yield Finding(name, line + offset, instead, rows[offset].strip())


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    wanted = tuple(sys.argv[1:])
    shown = [item for item in findings() if not wanted or item.path.startswith(wanted)]
    for item in shown:
        print(item)
    print(f"{len(shown)} findings")
