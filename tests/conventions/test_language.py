"""The prose of the code and the documents keeps to the language guide."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tests.support.language import (
    ROOT,
    check_document,
    check_module,
    documents,
    findings,
    semicolon_share,
)

MAX_SEMICOLON_SHARE = 0.02


def test_the_code_and_the_documents_keep_to_the_guide() -> None:
    found = findings()
    assert not found, "\n".join(map(str, found))


def test_sentences_of_documents_have_few_semicolons() -> None:
    shares = {path: semicolon_share(path.read_text("utf-8")) for path in documents()}
    over = [
        f"{path.relative_to(ROOT)}: {share:.1%} of the sentences have a semicolon"
        for path, share in shares.items()
        if share > MAX_SEMICOLON_SHARE
    ]
    assert not over, "\n".join(over)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("The run starts anew.", "again"),
        ("It waits for\never.", "indefinitely"),
        ("The poll is called off.", "cancel"),
        ("The command goes on\nafter it.", "resume or continue"),
        ("They mended the policy.", "fix"),
        ("It tells the client.", "report or say"),
        ("The report stands beside it.", "next to, alongside or compared with"),
        ("SQS is away.", "unavailable"),
        ("One Picture each.", "image"),
        ("One photograph each.", "image (input), not photograph"),
        ("Where SQS fails, it waits.", "if, when or unless"),
        ("It waits. Where SQS fails, it ends.", "if, when or unless"),
        ("It waits (where\nSQS fails), then ends.", "if, when or unless"),
        ("It is set only where the run is new.", "if, when or unless"),
        ("It fails where there is no bucket.", "if, when or unless"),
    ],
)
def test_dialect_is_found_in_docstrings_comments_messages_and_documents(
    text: str, instead: str
) -> None:
    comment = "".join(f"# {line}\n" for line in text.splitlines())
    for source in (f'"""{text}"""\n', comment, f"raise ValueError({text!r})\n"):
        assert [item.rule for item in check_module("ingest/module.py", source)] == [instead]
    assert [item.rule for item in check_document("docs/page.md", text)] == [instead]


@pytest.mark.parametrize(
    "text",
    [
        "The folder\nwhere results are kept.",
        "Choose where to write them.",
        "Return the bucket, and the key from where it is read.",
        "Recommended settings, amended once.",
        "The synthetic photographs of folio.",
    ],
)
def test_plain_english_is_not_a_finding(text: str) -> None:
    assert list(check_module("ingest/module.py", f'"""{text}"""\n')) == []
    assert list(check_document("docs/page.md", text)) == []


def test_descriptions_are_whole_noun_phrases() -> None:
    source = '''
        class Weights:
            """Weights of a model."""

            digest: str
            """Of the file, as hex digits."""
            size: int
            """Size of the file, in bytes."""

            def read(self, limit: int, offset: int) -> bytes:
                """Return some bytes.

                Args:
                    limit: In bytes.
                    offset: Position of the first byte.
                """
    '''
    found = list(check_module("serve_app/weights.py", dedent(source)))
    assert [(item.line, item.rule) for item in found] == [
        (6, "a whole noun phrase"),
        (14, "a whole noun phrase"),
    ]


def test_a_first_sentence_has_one_fact() -> None:
    chained, single = '"""Send it; wait."""\n', '"""Send it.\n\nThen it waits; nothing else."""\n'
    assert [item.rule for item in check_module("ingest/module.py", chained)] == [
        "one fact in a first sentence"
    ]
    assert list(check_module("ingest/module.py", single)) == []


def test_findings_name_their_line() -> None:
    source = '"""A module.\n\nIt waits for\never.\n"""\n# One.\n# Two, anew.\n'
    assert [item.line for item in check_module("ingest/module.py", source)] == [4, 7]
    document = "# Title\n\n```\nanew\n```\n\nA `picture`, [here](picture.md), anew.\n"
    assert [item.line for item in check_document("docs/page.md", document)] == [7]


def test_literals_of_tests_are_not_prose() -> None:
    source = 'TEXT = "it tells the client"\n'
    assert list(check_module("tests/unit/test_it.py", source)) == []
    assert len(list(check_module("ingest/it.py", source))) == 1


def test_semicolons_in_code_are_not_counted() -> None:
    assert semicolon_share("One. Two; three.\n\n```\na; b\n```\n\nFour `a; b` &amp; five.") == 1 / 3
