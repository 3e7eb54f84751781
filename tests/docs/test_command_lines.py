"""Every command line of `dls` in the documentation is one that the program understands."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from dls.cli.main import cli
from tests.docs.pages import PAGES, Example, list_commands, list_mentions

BLOCKS = [example for page in PAGES for example in list_commands(page) if example.words[:1] == ["dls"]]
MENTIONS = [example for page in PAGES for example in list_mentions(page)]


def find_command(words: list[str]) -> tuple[click.Command, click.Context, list[str]]:
    """Return the command that the words call, its parent's context, and the words that are left for it."""
    command: click.Command = cli
    context = click.Context(cli, info_name="dls")
    while isinstance(command, click.Group) and words and not words[0].startswith("-") and not words[0].isupper():
        found = command.get_command(context, words[0])
        assert found is not None, f"There is no command {words[0]}."
        command, words = found, words[1:]
        context = click.Context(command, parent=context, info_name=command.name)
    return command, context, words


def test_there_are_examples() -> None:
    """Examples are found in the README and in the pages."""
    assert len(BLOCKS) > 15 and len(MENTIONS) > 30
    assert {example.page.name for example in BLOCKS} >= {"README.md", "troubleshooting.md"}


@pytest.mark.parametrize("example", BLOCKS, ids=str)
def test_a_command_line_is_understood(example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command, options, values and arguments are what the program's own parser takes."""
    command, context, words = find_command(example.words[1:])
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            monkeypatch.setattr(parameter.type, "exists", False)  # the files of the examples are the reader's
    command.make_context(command.name, words, parent=context.parent)


@pytest.mark.parametrize("example", MENTIONS, ids=str)
def test_what_is_mentioned_exists(example: Example) -> None:
    """A command that the text names exists, and has the options that are named with it."""
    command, _, words = find_command(example.words[1:])
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--") or (word.startswith("-") and len(word) == 2):
            assert word.partition("=")[0] in known | {"-vv", "--help", "-h", "--version"}, word
