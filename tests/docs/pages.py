"""The pages of the documentation, and the examples in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.M | re.S)
INDENTED = re.compile(r"^    ((?:dls|scripts/\S+|bench/\S+|pip|python3?) [^\n]*)$", re.M)
INLINE = re.compile(r"`(dls [^`…]+)`")


@dataclass(frozen=True)
class Example:
    """One example: a command line or a program."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text.splitlines()[0]}"

    @property
    def words(self) -> list[str]:
        """The words of a command line, without a comment."""
        return shlex.split(self.text, comments=True)


def list_blocks(page: Path) -> Iterator[Example]:
    """Yield the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        indent, language, body = match.groups()
        lines = [line.removeprefix(indent) for line in body.splitlines()]
        yield Example(page, text.count("\n", 0, match.start()) + 2, language, "\n".join(lines))


def list_commands(page: Path) -> Iterator[Example]:
    """Yield the command lines in the blocks of a page."""
    for block in list_blocks(page):
        if block.language in ("sh", "console", "powershell"):
            for number, line in enumerate(block.text.replace("\\\n", " ").splitlines()):
                if line.strip() and not line.lstrip().startswith("#"):
                    yield Example(page, block.line + number, block.language, line.strip().removeprefix("$ "))
    yield from _find(INDENTED, page)


def list_mentions(page: Path) -> Iterator[Example]:
    """Yield the command lines of dls within the text of a page."""
    yield from _find(INLINE, page)


def _find(pattern: re.Pattern[str], page: Path) -> Iterator[Example]:
    text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text(encoding="utf-8"))
    for match in pattern.finditer(text):
        yield Example(page, text.count("\n", 0, match.start()) + 1, "sh", match[1])
