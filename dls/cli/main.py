"""The command group, and the one place where an error becomes a message and an exit code.

`dls --help` must answer at once: this module imports click and `dls.errors` only, and the module of a command is
imported when the command is used.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import NamedTuple

import click

from dls import __version__
from dls.errors import DlsError

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it for a program that SIGINT ended."""
INTERNAL_ERROR = 1
"""Exit code for an exception that is a bug in dls."""


class Entry(NamedTuple):
    """Where a command is defined, and its summary in `dls --help`, which equals the first line of its own help."""

    module: str
    summary: str


COMMANDS = {
    "connect": Entry("dls.cli.connect", "Start a segmentation server on HOST and open a local port to it."),
    "demo": Entry("dls.cli.demo", "Try everything on this computer, without a host."),
    "doctor": Entry("dls.cli.doctor", "Look at the way to HOST from end to end, and change nothing."),
    "forget": Entry("dls.cli.host", "Remove the password of HOST from this computer's keychain."),
    "logs": Entry("dls.cli.host", "Print the log of the server on HOST."),
    "models": Entry("dls.cli.models", "List and download models, and copy them to a host."),
    "pack": Entry("dls.cli.pack", "Put all that a host without internet needs into one file."),
    "segment": Entry("dls.cli.segment", "Segment image files without a viewer."),
    "serve": Entry("dls.cli.serve", "Run the segmentation server on this computer."),
    "sessions": Entry("dls.cli.host", "List the sessions stored on HOST, or remove them."),
    "stop": Entry("dls.cli.host", "Stop the server on HOST."),
}
"""All commands by name; the function in the module has the command's name."""


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is used, and lists all commands without that."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name and return it; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name].module), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their summaries."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dls")
def cli() -> None:
    """Segment in ITK-SNAP with a GPU somewhere else."""


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every failure is printed as a message and a hint."""
    try:
        return int(cli.main(arguments, prog_name="dls", standalone_mode=False) or 0)
    except DlsError as error:
        _print_error(error)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nInterrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # The reader of the output has ended, as in `dls logs host | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("DLS_DEBUG"):
            raise
        message = f"dls failed with an internal error: {type(error).__name__}: {error}"
        _print_error(DlsError(message, "Please report it, with what DLS_DEBUG=1 in the environment prints."))
        return INTERNAL_ERROR


def _print_error(error: DlsError) -> None:
    try:
        from dls.cli.console import show_error
    except ImportError:  # A host has only the packages of the server: no rich.
        from dls.cli.text import hint_text, printable
        from dls.contract import ERROR_PREFIX, HINT_PREFIX

        hint = error.hint and HINT_PREFIX + hint_text(error.hint)
        for line in (printable(error.detail, lines=True), printable(ERROR_PREFIX + error.message), hint):
            if line:
                click.echo(line, err=True)
    else:
        show_error(error)
