"""The help in groups, and what a shell completes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from dls.cli import help as groups
from dls.cli import main
from dls.cli.completion import VARIABLE
from dls.remote.user.memory import remember
from tests.support.command_line import run_dls


def complete(*words: str, incomplete: str = "") -> list[str]:
    """Return what the words go on with."""
    return [
        str(item.value) for item in ShellComplete(main.cli, {}, "dls", VARIABLE).get_completions([*words], incomplete)
    ]


def test_every_command_stands_in_a_group() -> None:
    """`dls --help` has no command twice and none without a group, and each group has an example that could be run."""
    named = [name for _, names, _ in groups.COMMAND_GROUPS for name in names]
    assert len(named) == len(set(named)) and set(main.COMMANDS) <= set(named)
    shown = run_dls("--help").stdout
    assert groups.OTHER not in shown
    for heading, _, example in groups.COMMAND_GROUPS:
        assert f"{heading}:\n" in shown and f"Example: {example}" in shown
        assert example.split()[1] in main.COMMANDS


def test_the_options_of_a_command_stand_in_groups() -> None:
    """None is left out, and those of the login stand together."""
    shown = run_dls("connect", "-h", env={**os.environ, "COLUMNS": "200"}).stdout
    assert re.findall(r"^([A-Z].*):$", shown, re.M)[:3] == ["Options", "Login", "Engine and model"]
    login = shown.split("\nLogin:\n")[1].split("\nEngine and model:\n")[0]
    assert "--jump" in login and "--engine" not in login and "Example: dls connect" in shown


@pytest.mark.parametrize("name", [*main.COMMANDS])
def test_every_command_has_an_example(name: str) -> None:
    """It is one of the command itself, in one line."""
    shown = run_dls(name, "-h").stdout
    assert "\\b" not in shown and "Example: dls completion zsh >> ~/.zshrc\n" in run_dls("completion", "-h").stdout
    assert re.search(rf"Examples?: +dls {name}\b|Examples?:\n+ +dls {name}\b", shown), shown


def test_help_and_version_are_commands_too() -> None:
    """They say what the options say; the help of a command that is none names it."""
    assert run_dls("help").stdout == run_dls("--help").stdout
    assert run_dls("help", "models", "pull").stdout == run_dls("models", "pull", "--help").stdout
    unknown = run_dls("help", "conect")
    assert unknown.returncode == 10 and "no command named 'conect'" in unknown.stderr
    typed = run_dls("conect")
    assert typed.returncode == 2 and "Did you mean connect?" in typed.stderr
    assert "Did you mean" not in run_dls("xyz").stderr
    assert run_dls("version").stdout.strip() in run_dls("-v").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_the_scripts_of_shells(shell: str, tmp_path: Path) -> None:
    """Each shell has one; those that are here find no mistake in it."""
    script = run_dls("completion", shell).stdout
    assert "dls" in script and f"{shell}_complete" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_shell_is_answered(tmp_path: Path) -> None:
    """A shell asks by environment variables, and gets a line for each word that fits."""
    asked = {"_DLS_COMPLETE": "bash_complete", "COMP_WORDS": "dls co", "COMP_CWORD": "1"}
    assert run_dls(env={**os.environ, **asked}).stdout.split() == ["plain,completion", "plain,connect"]
    asked = {"_DLS_COMPLETE": "powershell_complete", "DLS_WORDS": "dls\nconnect\n--engine", "DLS_WORD": "reg"}
    assert run_dls(env={**os.environ, **asked}).stdout.split() == ["region"]


def test_hosts_of_included_files_complete(tmp_path: Path) -> None:
    """An SSH configuration includes files, by patterns."""
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config").write_text(f"Include {tmp_path}/config.d/*\nHost gpu-own *.lab\n")
    (tmp_path / "config.d" / "work").write_text("Host gpu-included\n")
    asked = {"_DLS_COMPLETE": "powershell_complete", "DLS_WORDS": f"dls\nconnect\n-F\n{tmp_path / 'config'}"}
    user = {**os.environ, **asked, "DLS_WORD": "gpu", "DLS_USER_DIR": str(tmp_path)}
    assert run_dls(env=user).stdout.split() == ["gpu-included", "gpu-own"]


@pytest.mark.parametrize(
    ("line", "replaced", "completed"),
    [
        ("dls connect ann@gp", "@gp", "@gpuhost:2222"),
        ("dls connect ann@gpuhost:2", "2", "2222"),
        ("dls connect --engine=r", "r", "region"),
        ("dls help mod", "mod", "models"),
        ("dls hosts show a", "a", "ann@gpuhost:2222"),
        ("dls segment --host a", "a", "ann@gpuhost:2222"),
    ],
)
def test_bash_completes_whole_words(line: str, replaced: str, completed: str, tmp_path: Path) -> None:
    """Bash splits words at @, : and =, and replaces the last piece only; so it is asked as bash asks."""
    program = tmp_path / "dls"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dls "$@"\n')
    program.chmod(0o700)
    user = {"DLS_USER_DIR": str(tmp_path), "HOME": str(tmp_path)}
    (tmp_path / "hosts.toml").write_text('["ann@gpuhost:2222"]\nport = 2222\n')
    script = run_dls("completion", "bash").stdout + (
        'COMP_LINE=$1; COMP_POINT=${#1}; _dls_completion "$2" "$3"; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    words = ["bash", "--norc", "-c", script, "bash", line, str(program), replaced]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **user}, check=True)
    assert done.stdout.split() == [completed], done.stderr


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
def test_zsh_completes_where_nothing_has_switched_that_on() -> None:
    """A new ~/.zshrc, as on macOS, has only what was appended to it: no shell begins with an error."""
    script = run_dls("completion", "zsh").stdout + '\nprint -r -- "[$_comps[dls]]"'
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[_dls_completion]", "")


def test_lines_of_help_stay_lines() -> None:
    """What is typed for each shell has a line of its own."""
    assert "\nExample: dls completion zsh >> ~/.zshrc\n" in run_dls("completion", "--help").stdout


def test_what_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that were used and those of the SSH configuration, engines, devices, and models on this computer."""
    monkeypatch.setenv("DLS_USER_DIR", str(tmp_path))
    monkeypatch.setenv("NNINTERACTIVE_MODEL_DIR", str(tmp_path))
    (tmp_path / "config").write_text("Host gpu1 gpu2 *.lab !no\nHost=other\n")
    (tmp_path / "models.json").write_text('{"models": [{"id": "nnInteractive_v1.0"}]}')
    remember("ann@gpuhost")
    config = ("-F", str(tmp_path / "config"))
    assert complete("connect", *config) == ["ann@gpuhost", "gpu1", "gpu2", "other"]
    assert complete("connect", *config, incomplete="bob@gpu") == ["bob@gpu1", "bob@gpu2"]
    assert complete("stop", *config, incomplete="ann@gpuh") == ["ann@gpuhost"]
    assert complete("serve", "--engine", incomplete="n") == ["nninteractive"]
    assert (
        complete("pack", "--engine") == ["nninteractive", "region"]
        and "[[USER@]HOST" in run_dls("help", "connect").stdout
    )
    assert complete("serve", "--device", incomplete="cu") == ["cuda", "cuda:0"]
    assert complete("models", "pull", incomplete="nn") == ["nnInteractive_v1.0"]
    assert complete("completion", incomplete="z") == ["zsh"] and "status" in complete()
