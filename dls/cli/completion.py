"""Completion for shells: their scripts, and what hosts, engines, devices and models complete to.

A shell asks at each press of a key, so nothing slow is imported or asked here, and a failure completes nothing.
"""

from __future__ import annotations

import contextlib
import os

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
)

VARIABLE = "_DLS_COMPLETE"
SHELLS = ("bash", "zsh", "fish", "powershell")
ENGINES = ("auto", "nninteractive", "region")
DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")


class WholeWordBashComplete(BashComplete):
    """Completion in bash, which splits words at @, : and =, and so click's own completes no `ann@gp`.

    The words are taken from the line, and what bash keeps of the last one (all before "$2") is cut off the answers.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$' \\t\\n' line="${COMP_LINE:0:COMP_POINT}" words head response type value
    read -r -a words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    head="${words[${#words[@]}-1]}"
    head="${head%%"$2"}"
    response=$(env COMP_WORDS="$line" COMP_CWORD=$((${#words[@]} - 1)) %(complete_var)s=bash_complete "$1")
    while IFS=, read -r type value; do
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            plain) COMPREPLY+=("${value#"$head"}") ;;
        esac
    done <<< "$response"
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class ReadyZshComplete(ZshComplete):
    """Completion in zsh, which is switched on where nothing in ~/.zshrc has done so, as on a new macOS."""

    source_template = ZshComplete.source_template.replace(
        "    compdef ", "    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }\n    compdef "
    )


class PowerShellComplete(ShellComplete):
    """Completion in PowerShell, which click has not."""

    name = "powershell"
    source_template = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($word, $tree, $position)
    $words = @($tree.CommandElements | Where-Object { $_.Extent.EndOffset -le $position } | ForEach-Object { "$_" })
    if ($word -and $words.Count -gt 1) { $words = $words[0..($words.Count - 2)] }
    $env:%(complete_var)s = "powershell_complete"
    $env:DLS_WORDS = $words -join "`n"
    $env:DLS_WORD = $word
    try {
        & %(prog_name)s | ForEach-Object {
            $value, $text = $_ -split "`t", 2
            if (-not $text) { $text = $value }
            [System.Management.Automation.CompletionResult]::new($value, $value, 'ParameterValue', $text)
        }
    } finally {
        Remove-Item Env:%(complete_var)s, Env:DLS_WORDS, Env:DLS_WORD -ErrorAction SilentlyContinue
    }
}
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the complete words after the program's name, and the incomplete one."""
        return os.environ.get("DLS_WORDS", "").split("\n")[1:], os.environ.get("DLS_WORD", "")

    def format_completion(self, item: CompletionItem) -> str:
        """Return a line with the value and its help."""
        return f"{item.value}\t{item.help}" if item.help else str(item.value)


for _class in (WholeWordBashComplete, ReadyZshComplete, PowerShellComplete):
    add_completion_class(_class)


def make_script(program: click.Command, shell: str) -> str:
    """Return the script that completes the program's words in the shell."""
    found = get_completion_class(shell)
    assert found is not None
    return found(program, {}, "dls", VARIABLE).source().strip()


def complete_host(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the known hosts and those of the SSH configuration; a user before @ stays."""
    user, at, _ = incomplete.rpartition("@")
    names = dict.fromkeys(complete_known_host(context, parameter, incomplete))
    with contextlib.suppress(Exception):
        names |= dict.fromkeys(f"{user}{at}{name}" for name in list_configured(context.params.get("ssh_config")))
    return [name for name in names if name.startswith(incomplete)]


def complete_known_host(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the hosts that were used before or have a profile."""
    with contextlib.suppress(Exception):
        from dls.cli.known_hosts import list_targets

        return [name for name in list_targets() if name.startswith(incomplete)]
    return []


def list_configured(path: object) -> list[str]:
    """Return the names of the `Host` lines of the SSH configuration and of what it includes, without patterns."""
    from pathlib import Path

    from dls.cli.known_hosts import list_aliases
    from dls.remote.ssh.config_text import read_text

    return list_aliases(read_text(Path(str(path)) if path else None))


def complete_engine(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the engines."""
    return [name for name in ENGINES if name.startswith(incomplete)]


def complete_device(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the devices that are usual."""
    return [name for name in DEVICES if name.startswith(incomplete)]


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the models on this computer, and those of the list that was read last."""
    names: dict[str, None] = {}
    with contextlib.suppress(Exception):
        import json

        from dls.weights import ModelSpec, list_local

        root = ModelSpec().root
        names |= dict.fromkeys(folder.name for folder in list_local(root))
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            listed = json.loads((root / "models.json").read_text(encoding="utf-8"))["models"]
            names |= dict.fromkeys(str(entry["id"]) for entry in listed)
    return [name for name in names if name.startswith(incomplete)]
