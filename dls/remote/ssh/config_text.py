"""The text of an SSH configuration with the files that it includes, for those who have no `ssh` to read it."""

from __future__ import annotations

import glob
from pathlib import Path

from dls.errors import TargetError
from dls.remote.ssh.openssh_config import home_directory, is_file


def read_text(path: Path | None) -> str:
    """Return the text of an SSH configuration file with its includes; without a path the user's own, if any.

    Raises TargetError for a file that can't be read.
    """
    chosen = path or home_directory() / ".ssh" / "config"
    if str(path) == "none" or (path is None and not is_file(chosen)):
        return ""
    try:
        return _expand_includes(_decode(chosen.read_bytes()), home_directory() / ".ssh")
    except OSError as error:
        raise TargetError(
            f"The SSH configuration {chosen} can't be read: {error.strerror}.", "Name another one with -F."
        ) from error


def _decode(data: bytes) -> str:
    # OpenSSH looks at bytes; a comment in Latin-1, or a byte order mark of a Windows editor, does not stop it.
    return data.decode("utf-8-sig", errors="replace")


def _expand_includes(text: str, folder: Path, parents: tuple[str, ...] = ()) -> str:
    """Replace each `Include` line by the files it names, as ssh_config(5) defines; paramiko ignores such lines."""
    lines = []
    for line in text.splitlines():
        words = line.replace("=", " ", 1).split()
        if not words or words[0].lower() != "include":
            lines.append(line)
            continue
        for word in words[1:]:
            pattern = Path(word.strip('"')).expanduser()
            for name in sorted(glob.glob(str(folder / pattern))):  # noqa: PTH207 - the pattern may be absolute
                if name not in parents:
                    lines.append(_expand_includes(_decode(Path(name).read_bytes()), folder, (*parents, name)))
    return "\n".join(lines)
