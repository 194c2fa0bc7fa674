"""The commands on a page of the documentation, and a shell that runs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

_STOP_S = 90.0
_TYPED = re.compile(r"^```(\w*)\n(.*?)^```|`((?:foreedge|pip) [^`]*)`", re.DOTALL | re.MULTILINE)
_FIRST_WORDS = ("foreedge ", "aws ")


def section(page: Path, title: str) -> str:
    """Return the text of a section, without that of the sections after it."""
    pattern = rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)"
    [text] = re.findall(pattern, page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return str(text)


def blocks(text: str, language: str) -> list[str]:
    """Return the blocks of code in a language."""
    return [each[2] for each in _TYPED.finditer(text) if each[1] == language]


def typed(text: str) -> Iterator[str]:
    """Yield what a reader types, in the order of a text.

    It is each block of shell commands, each line of another block that begins with a program, and
    each command in a sentence.
    """
    for each in _TYPED.finditer(text):
        language, block, command = each.groups()
        if command is not None:
            yield " ".join(command.split())
        elif language == "sh":
            yield block
        elif not language:
            yield from (line for line in block.splitlines() if line.startswith(_FIRST_WORDS))


class Shell:
    """A bash that is typed into, so that variables and background jobs stay.

    A command that fails ends what is typed with it.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Start the shell.

        Args:
            folder: Working directory of the shell.
            environment: Variables of the shell.
        """
        self._folder = folder
        self._number = 0
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the shell, and wait for what it has left in the background."""
        with self._bash, suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGTERM)
        until = time.monotonic() + _STOP_S
        with suppress(ProcessLookupError):
            while time.monotonic() < until:
                os.killpg(self._bash.pid, 0)
                time.sleep(0.1)
            os.killpg(self._bash.pid, signal.SIGKILL)

    def run(self, script: str) -> str:
        """Run commands that must succeed, and return what they print on both outputs.

        It returns once the last one in the foreground has ended.
        """
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._number += 1
        file, out = (self._folder / f".typed-{self._number}.{end}" for end in ("sh", "out"))
        file.write_text(script)
        self._bash.stdin.write(
            f"trap 'echo $?' EXIT; set -euo pipefail; . {file} > {out} 2>&1; trap - EXIT; echo 0\n"
        )
        code, text = self._bash.stdout.readline().strip(), out.read_text()
        assert code == "0", f"{script}\nended with {code}\n{text}"
        return text
