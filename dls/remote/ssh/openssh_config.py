"""The SSH configuration as OpenSSH itself reads it: `ssh -G` prints what `ssh` would do for a host."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from dls.errors import TargetError

Settings = Mapping[str, tuple[str, ...]]
"""The configuration of one host: the values of each option in order, by its name in lower case."""

POLL_SECONDS = 0.2
"""Seconds between two looks at `ssh -G`, so that Ctrl-C ends one whose `Match exec` hangs; Windows needs it too."""
MATCH_EXEC_SECONDS = 60.0
"""Longest time for `ssh -G`, whose `Match exec` commands may ask a network."""


def find_ssh() -> str | None:
    """Return the path of OpenSSH's `ssh` on this computer; None where it has none."""
    windows = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "OpenSSH")  # noqa: PTH118 - no file
    path = os.environ.get("PATH", "")
    return shutil.which("ssh") or (
        shutil.which("ssh", path=f"{path}{os.pathsep}{windows}") if os.name == "nt" else None
    )


OLD_NAMES = {"pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms"}
"""Names that releases before 8.5, as that of Windows 10, print, and what they are called since."""
PROGRAM_DATA = "__PROGRAMDATA__"
"""How paths begin that OpenSSH has built in on Windows: `ssh -G` prints this, and only opening a file replaces it."""
GLOBAL_KNOWN_HOSTS = f"{PROGRAM_DATA}/ssh/ssh_known_hosts" if os.name == "nt" else "/etc/ssh/ssh_known_hosts"
"""Where the host keys are that all users of this computer know."""
PLAIN = (("-F", "none"), "localhost")
"""What to ask `read_settings` for to have the settings without any configuration."""


def read_settings(program: str, arguments: Sequence[str], host: str) -> Settings:
    """Return the settings that `ssh` has for the host.

    `arguments` are the options that the user gave, in `ssh`'s own form. Raises TargetError where `ssh` refuses them.
    """
    process = _start(_command(program, arguments, host))
    try:
        return parse(_finish(process, host))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start_early(arguments: Sequence[str], host: str) -> None:
    """Start what `read_settings` will be asked for, while the caller still loads the modules that need it."""
    program = find_ssh()
    if program is None:
        return
    for asked in ((arguments, host), PLAIN):
        command = _command(program, *asked)
        _started[tuple(command)] = _start(command)


def _command(program: str, arguments: Sequence[str], host: str) -> list[str]:
    # With ForkAfterAuthentication, ssh wants a command, which it does not run for -G.
    return [program, "-G", "-o", "RemoteCommand=none", *arguments, "--", host, "exec sh"]


_started: dict[tuple[str, ...], subprocess.Popen[bytes]] = {}
"""Processes that were started early, by their command lines; each is used once."""


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    if (process := _started.pop(tuple(command), None)) is not None:
        return process
    # A Match exec must not read what is typed here, nor paint over the progress.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _finish(process: subprocess.Popen[bytes], host: str) -> str:
    deadline = time.monotonic() + MATCH_EXEC_SECONDS
    while True:
        try:
            output, errors = process.communicate(timeout=POLL_SECONDS)
            break
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise TargetError(
                    f"ssh took more than {MATCH_EXEC_SECONDS:.0f} s to read the SSH configuration of {host}.",
                    "Does a command of a `Match exec` in it hang? Name another configuration with -F.",
                ) from None
    if process.returncode:
        raise configuration_refused(errors.decode(errors="replace"))
    return output.decode(errors="replace")


def configuration_refused(errors: str) -> TargetError:
    """Return the error for an SSH configuration, or an option of its kind, that `ssh` refuses; `errors` is its text."""
    lines = [line.strip().rstrip(".") for line in errors.splitlines() if line.strip() and "Pseudo-terminal" not in line]
    reasons = [line for line in lines if "terminating" not in line]
    return TargetError(
        f"ssh does not accept the SSH configuration: {'; '.join(reasons[-2:]) or 'it gave no reason'}.",
        "Correct that line or option, or name another configuration with -F.",
    )


def parse(text: str) -> Settings:
    """Read the output of `ssh -G`: on each line a name and a value; options that may be repeated stand once a value."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name and value:
            found[current_name(name)].append(value)
    return {name: tuple(values) for name, values in found.items()}


def current_name(name: str) -> str:
    """Return the name of a setting in lower case, as it is called today."""
    return OLD_NAMES.get(name.lower(), name.lower())


def split_paths(value: str) -> list[str]:
    """Split the paths that `ssh -G` prints in one line, where a blank within a path is not marked.

    A part that begins like a path begins one, and other parts belong to the path before them.
    """
    paths: list[str] = []
    for part in value.split(" "):
        begins = part.startswith(("/", "~", "\\", PROGRAM_DATA)) or part[1:2] == ":"
        if not paths or begins or part.lower() == "none":
            paths.append(part)
        else:
            paths[-1] += f" {part}"
    return [path for path in paths if path]


def home_directory() -> Path:
    """Return the home directory as OpenSSH has it: that of the user database, whatever $HOME says."""
    try:
        import pwd

        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError):  # Windows has no such database, and a container's user may not be in it
        return Path.home()


def is_file(path: Path) -> bool:
    """Whether there is such a file; one below a folder that may not be entered counts as missing, as for `ssh`."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises PermissionError there


def is_there(path: Path) -> bool:
    """Whether there is something at the path; what lies below a folder that may not be entered counts as missing."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises PermissionError there


def expand_home(name: str, home: Path) -> Path:
    """Return the path with a leading `~` replaced by the home directory, and OpenSSH's word for Windows' own folder."""
    bare = name.strip('"')
    if bare.startswith(PROGRAM_DATA):
        return Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), bare.removeprefix(PROGRAM_DATA).lstrip("\\/"))
    if bare == "~":
        return home
    return home / bare[2:] if bare.startswith(("~/", "~\\")) else Path(bare)
