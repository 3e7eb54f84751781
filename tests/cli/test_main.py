"""The command line as a whole: its help, its exit codes, and how a failed command ends."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

import dls
from dls import errors
from dls.cli import main
from dls.cli.options import read_first_line
from tests.support.command_line import run_dls

CONNECT_PAGE = Path(__file__).parents[2] / "docs" / "connect.md"


def list_errors(kind: type[errors.DlsError] = errors.DlsError) -> list[type[errors.DlsError]]:
    return [kind, *(deeper for below in kind.__subclasses__() for deeper in list_errors(below))]


def find_command(name: str) -> click.Command:
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None, name
    return command


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_file_of_a_secret(tmp_path: Path, encoding: str) -> None:
    """Its first line is the secret, without the mark that Notepad and PowerShell put before it, and its line end."""
    path = tmp_path / "secret"
    path.write_text("pässword\r\nmore\r\n", encoding=encoding, newline="")
    assert read_first_line(str(path), "--password-file") == "pässword"


def test_how_a_pipe_without_a_reader_fails() -> None:
    """On Windows that is an invalid argument, which elsewhere, or of a file, is another failure."""
    invalid = OSError(errno.EINVAL, "Invalid argument")
    assert main.has_no_reader(BrokenPipeError()) and main.has_no_reader(invalid, "win32")
    assert not main.has_no_reader(invalid, "linux") and not main.has_no_reader(ValueError(), "win32")
    assert not main.has_no_reader(OSError(errno.EINVAL, "Invalid argument", "a?b"), "win32")


def test_help_and_version() -> None:
    """`dls --help` lists every command with a sentence, and every command has a help of its own."""
    done = run_dls("--help")
    assert done.returncode == 0 and done.stderr == ""
    for command in ("connect", "serve", "stop", "logs", "demo"):
        assert re.search(rf"^  {command} +[A-Z]", done.stdout, re.M)
        assert run_dls(command, "-h").returncode == 0
    assert run_dls("--version").stdout == f"dls, version {dls.__version__}\n"


@pytest.mark.parametrize("name", main.COMMANDS)
def test_the_list_of_commands_says_what_the_command_says(name: str) -> None:
    """`dls --help` imports no command, so the summaries stand twice; they are equal, and fit in one line."""
    help_text = find_command(name).help
    assert help_text is not None
    summary = help_text.splitlines()[0]
    assert main.COMMANDS[name].summary == summary
    assert len(summary) <= 80 - len("  sessions  ")


def test_an_unknown_command() -> None:
    """An unknown command ends with exit code 2 and names the command."""
    done = run_dls("conect")
    assert done.returncode == 2 and "No such command 'conect'" in done.stderr


def test_every_exit_code_is_documented() -> None:
    """Each exit code has a row in docs/connect.md."""
    page = CONNECT_PAGE.read_text(encoding="utf-8")
    codes = {kind.exit_code for kind in list_errors() if not issubclass(kind, errors.RequestError)}
    for code in codes | {main.INTERRUPTED, main.INTERNAL_ERROR, 2}:
        assert re.search(rf"^\| {code} \|", page, re.M), code


def test_no_two_errors_share_an_exit_code() -> None:
    """An exit code of 10 or more belongs to one error; those that only refine another one inherit its code."""
    named = [kind for kind in list_errors() if "exit_code" in vars(kind)]
    assert len({kind.exit_code for kind in named}) == len(named) > 10


def test_every_option_is_documented_by_its_help() -> None:
    """Every option has a help text, from which the page of the command line is made."""
    for name in main.COMMANDS:
        command = find_command(name)
        for below in command.commands.values() if isinstance(command, click.Group) else [command]:
            for option in below.params:
                if isinstance(option, click.Option):
                    assert option.hidden or option.help, (name, option.name)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["connect"], 2, "Missing argument"),
        (["connect", "host:99999"], 10, "Error: 'host:99999' has no valid port: '99999'.\nHint:  A port is a number"),
        (["connect", "-F", "/no/such/file", "host"], 10, "/no/such/file can't be read"),
        (["connect", "--engine", "magic", "host"], 10, "no engine named 'magic'"),
        (["connect", "--device", "toaster", "host"], 2, "toaster"),
        (["connect", "no-such-host.invalid"], 11, "No host is known as 'no-such-host.invalid'"),
        (["connect", "--password-file", "/no/such/file", "host"], 10, "--password-file"),
        (["sessions", "--purge", "host"], 10, "--yes"),
        (["serve", "-p", "0", "--engine", "magic"], 21, "no engine named 'magic'"),
        (["serve", "--host", "no-such-host.invalid"], 20, "no address of this computer"),
        (["serve", "--secret", "a b"], 2, "a secret is made of"),
        (["serve", "--secret", "@/no/such/file"], 10, "Name another one with --secret."),
        (["serve", "-p", "0", "--engine", "region", "--device", "cuda"], 21, "CPU only"),
        (["serve", "--uds", "/no/such/folder/s"], 20, "can't be made"),
    ],
)
def test_failures_end_in_a_sentence_and_an_exit_code(arguments: list[str], code: int, message: str) -> None:
    """A failed command prints one sentence and one hint, no traceback, and nothing on standard output."""
    done = run_dls(*arguments)
    assert done.returncode == code, done
    assert message in done.stderr and "Traceback" not in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["connect", "--json", "host:99999"], 10, "'host:99999' has no valid port"),
        (["connect", "--json"], 2, "Missing argument"),
        (["sessions", "--json", "--purge", "host"], 10, "no terminal"),
        (["doctor", "--json", "--gpu", "x", "host"], 2, "'x' is not a valid integer"),
    ],
)
def test_a_failure_is_an_event(arguments: list[str], code: int, message: str) -> None:
    """With --json the last line on standard output is the event `error`, with what standard error says too."""
    done = run_dls(*arguments)
    event = json.loads(done.stdout.splitlines()[-1])
    assert (event["event"], event["exit_code"], done.returncode) == ("error", code, code)
    assert message in event["message"] and event["message"] in done.stderr and event["hint"] in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_that_an_encoding_lacks(encoding: str) -> None:
    """A character that the terminal's encoding lacks is written as something like it, and ends no command."""
    code = "from dls.cli import main; import sys; print('✓ 5 µm … ł'); sys.exit(main.run(['-h']))"
    before = f"from dls.cli import encodings; encodings.tolerate_what_streams_lack(); {code}"
    done = subprocess.run(
        [sys.executable, "-c", before],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
    )
    shown = done.stdout.decode(encoding).splitlines()[0]
    assert shown == {"cp1252": "+ 5 µm … ?", "ascii": "+ 5 ?m ... ?", "utf-8": "✓ 5 µm … ł"}[encoding]


def test_an_internal_error_is_reported_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected exception ends with exit code 1, and the hint says how to get the traceback."""

    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("x")

    monkeypatch.setattr(import_module("dls.cli.host"), "stop", click.Command("stop", callback=fail))
    assert main.run(["stop"]) == 1
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: x" in shown and "DLS_DEBUG=1" in shown and "Traceback" not in shown
    monkeypatch.setenv("DLS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main.run(["stop"])
