"""The hosts that `dls connect` offers where none is named, and the choice among them."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import click

from dls.cli.text import printable
from dls.errors import TargetError

MOST = 15
"""Hosts that are listed; a long SSH configuration would push those used last off the screen."""

LINE = re.compile(r"([a-z]+)(?:\s*=\s*|\s+)(.+)", re.IGNORECASE)
"""A line of an SSH configuration: a keyword, and after a space or an equals sign its arguments."""


@dataclass(frozen=True)
class Known:
    """A host, and from where it is known."""

    target: str
    about: str


def describe_age(last: datetime, now: datetime | None = None) -> str:
    """Return how long ago that was, as people say it: "today", "3 days ago"."""
    days = ((now or datetime.now(timezone.utc)).astimezone().date() - last.astimezone().date()).days
    if days < 1:
        return "today"
    return "yesterday" if days == 1 else f"{days} days ago"


def list_known(ssh_config: Path | None = None) -> list[Known]:
    """Return all known hosts: those used before, the last one first, then those with a profile, then OpenSSH's."""
    from dls.remote.ssh.config_text import read_text
    from dls.remote.user.memory import used_before
    from dls.remote.user.profile_file import ProfileFile

    profiles = ProfileFile.read().hosts
    found: dict[str, str] = {}
    for host in used_before():
        found[host.target] = f"used {describe_age(host.last)}" + (", profile" if host.target in profiles else "")
    for target in profiles:
        if target:
            found.setdefault(target, "profile")
    with contextlib.suppress(TargetError):
        for name in list_aliases(read_text(ssh_config)):
            found.setdefault(name, "SSH configuration")
    return [Known(target, about) for target, about in found.items()]


def list_targets() -> list[str]:
    """Return the hosts that `dls hosts` lists: those used before, the last one first, then those with a profile."""
    from dls.remote.user.memory import used_before
    from dls.remote.user.profile_file import ProfileFile

    profiles = filter(None, ProfileFile.read().hosts)
    return list(dict.fromkeys([*(host.target for host in used_before()), *profiles]))


def list_aliases(text: str) -> list[str]:
    """Return the names of the `Host` lines of an SSH configuration, without patterns: pure."""
    names: dict[str, None] = {}
    for line in text.splitlines():
        words = _split(line.strip())
        if len(words) > 1 and words[0].lower() == "host":
            names |= dict.fromkeys(word for word in words[1:] if word and not any(sign in word for sign in "*?!"))
    return list(names)


def _split(line: str) -> list[str]:
    """Return the words of a line: `Host a b`, `Host=a`, `host "a"`; none for a comment."""
    found = LINE.match(line)
    if found is None:
        return []
    try:
        return [found[1], *shlex.split(found[2])]
    except ValueError:  # a quote without its end
        return [found[1], *found[2].split()]


def choose(known: list[Known]) -> str:
    """Ask at the terminal which host is meant, by its number or its name; Return alone means the first."""
    from dls.cli.prompter import read_line

    width = max(len(printable(host.target)) for host in known[:MOST])
    lines = ["Which host?", ""]
    lines += [f"  {n:2}  {printable(host.target):{width}}  {host.about}" for n, host in enumerate(known[:MOST], 1)]
    if len(known) > MOST:
        lines.append(f"      and {len(known) - MOST} more")
    sys.stderr.write("\n".join(lines) + "\n\n")
    while True:
        answer = read_line(f"A number, or the name of any host [1: {printable(known[0].target)}]: ")
        if not answer:
            return known[0].target
        if not answer.isdecimal():
            return answer
        if 1 <= int(answer) <= min(len(known), MOST):
            return known[int(answer) - 1].target
        sys.stderr.write(f"There is no number {answer}.\n")


def ask_for_host(context: click.Context, parameter: click.Parameter, ssh_config: Path | None) -> str:
    """Return the host that the person at the terminal chooses; raises MissingParameter where there is nobody to ask."""
    from dls.cli.prompter import is_interactive

    if not is_interactive():
        said = "There is no terminal to choose a host at: name one, as in: dls connect ann@gpuhost"
        raise click.MissingParameter(said, ctx=context, param=parameter, param_hint="'HOST'")
    known = list_known(ssh_config)
    if not known:
        said = "No host is known yet: name one, as in: dls connect ann@gpuhost"
        raise click.MissingParameter(said, ctx=context, param=parameter, param_hint="'HOST'")
    return choose(known)
