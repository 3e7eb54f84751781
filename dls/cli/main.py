"""The command group, and the one place where an error becomes a message and an exit code.

`dls --help` must answer at once: this module imports click and `dls.errors` only, and the module of a command is
imported when the command is used.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import NamedTuple

import click

from dls import __version__
from dls.cli import encodings
from dls.cli.help import write_commands
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
    "check": Entry("dls.cli.check", "Play ITK-SNAP against a server, and time each request."),
    "completion": Entry("dls.cli.about", "Print what lets a shell complete commands, hosts and models."),
    "connect": Entry("dls.cli.connect", "Start a segmentation server on HOST and open a local port to it."),
    "demo": Entry("dls.cli.demo", "Try everything on this computer, without a host."),
    "doctor": Entry("dls.cli.doctor", "Look at the way to HOST from end to end, and change nothing."),
    "forget": Entry("dls.cli.host", "Remove the password of HOST from this computer's keychain."),
    "help": Entry("dls.cli.about", "Show the help of dls, or of COMMAND."),
    "hosts": Entry("dls.cli.hosts", "List the known hosts, show what is kept for one, or forget it."),
    "logs": Entry("dls.cli.host", "Print the log of the server on HOST."),
    "models": Entry("dls.cli.models", "List and download models, and copy them to a host."),
    "pack": Entry("dls.cli.pack", "Put all that a host without internet needs into one file."),
    "segment": Entry("dls.cli.segment", "Segment image files without a viewer."),
    "serve": Entry("dls.cli.serve", "Run the segmentation server on this computer."),
    "sessions": Entry("dls.cli.host", "List the sessions stored on HOST, or remove them."),
    "status": Entry("dls.cli.status", "Show what runs on HOST: server, GPU, sessions, last request."),
    "stop": Entry("dls.cli.host", "Stop the server on HOST."),
    "uninstall": Entry("dls.cli.uninstall", "Remove everything of dls from HOST, and leave it as it was."),
    "version": Entry("dls.cli.about", "Print the version of dls."),
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command and its arguments; the error about an unknown one names the command that is meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            if near := get_close_matches(args[0], COMMANDS, 1):
                raise click.UsageError(f"{error.message} Did you mean {near[0]}?", error.ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in groups, with their summaries."""
        write_commands(formatter, {name: COMMANDS[name].summary for name in self.list_commands(ctx)})


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-v", "--version", prog_name="dls")
def cli() -> None:
    """Segment in ITK-SNAP with a GPU somewhere else."""


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every failure is printed as a message and a hint.

    With --json it is written as the event `error` too.
    """
    encodings.tolerate_what_streams_lack()
    as_json = "--json" in arguments
    if os.environ.get("_DLS_COMPLETE"):  # a shell asks what the words could go on with
        import_module("dls.cli.completion")
    try:
        return int(cli.main(arguments, prog_name="dls", standalone_mode=False) or 0)
    except DlsError as error:
        return _fail(error, error.exit_code, as_json)
    except click.ClickException as error:
        error.show()
        return _fail(None, error.exit_code, as_json, error.format_message())
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nInterrupted.", err=True)
        return _fail(None, INTERRUPTED, as_json, "Interrupted.")
    except Exception as error:
        if has_no_reader(error):  # the reader of the output has ended, as in `dls logs host | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        if os.environ.get("DLS_DEBUG"):
            raise
        message = f"dls failed with an internal error: {type(error).__name__}: {error}"
        hint = "Please report it, with what DLS_DEBUG=1 in the environment prints."
        return _fail(DlsError(message, hint), INTERNAL_ERROR, as_json)


def has_no_reader(error: Exception, system: str = sys.platform) -> bool:
    """Return whether the error is that of a pipe that nobody reads any more; on Windows it is an invalid argument."""
    is_windows = system == "win32" and isinstance(error, OSError) and error.errno == errno.EINVAL
    return isinstance(error, BrokenPipeError) or (is_windows and getattr(error, "filename", None) is None)


def _fail(error: DlsError | None, exit_code: int, as_json: bool, message: str = "") -> int:
    """Print the error, unless it has been printed, and write its event if one is wanted; returns the exit code."""
    if error is not None:
        _print_error(error)
        message = error.message
    if as_json:
        from dls.cli.events import write_event

        # A program that reads the events and has ended meanwhile is no failure of its own.
        try:
            write_event("error", message=message, hint=error.hint if error else "", exit_code=exit_code)
        except OSError as lost:
            if not has_no_reader(lost):
                raise
    return exit_code


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
