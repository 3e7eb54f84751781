"""The file format of known_hosts (sshd(8)): which lines are about a host, and how a line is added."""

from __future__ import annotations

import base64
import enum
import errno
import fnmatch
import hashlib
import hmac
import os
import re
import secrets
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dls.remote.ssh.key_types import KEY_FIELDS
from dls.remote.ssh.wire import Reader

HASH_MAGIC = "|1|"
"""Start of a hashed name; the base64 texts of a salt and of the name's HMAC-SHA1 follow it."""
BLANKS = re.compile(r"[ \t]+")
UNSAFE = re.compile(r"""[\s@?*#\[\]|'"\\,!]""")
"""What a host's name may not hold if it is to be written to known_hosts, where it would mean something else."""

_appending = threading.Lock()


class Marker(enum.Enum):
    """The marker at the start of a line."""

    NONE = ""
    AUTHORITY = "@cert-authority"
    """The key is that of an authority, which signs host certificates."""
    REVOKED = "@revoked"
    """The key must not be accepted, neither from a host nor as that of an authority."""


@dataclass(frozen=True)
class Entry:
    """One line of known_hosts that holds a key."""

    file: Path
    line: int
    marker: Marker
    names: str
    """The host names as the line has them: patterns separated by commas, or one hashed name."""
    key_type: str
    key: bytes
    """The key in the form of RFC 4253, section 6.6."""


def read(files: Iterable[Path], name: str) -> list[Entry]:
    """Return the lines of the files that are about a host; `name` is as `Target.known_hosts_name` has it."""
    return list(read_all(files, lambda names: matches(names, name)))


def names_of(files: Iterable[Path], key: bytes) -> list[str]:
    """Return where else the files list a host's key, and under which names, as OpenSSH says it: FILE:LINE: NAMES."""
    found = [entry for entry in read_all(files) if entry.marker is Marker.NONE and entry.key == key]
    return [
        f"{entry.file}:{entry.line}: {'[hashed name]' if entry.names.startswith('|') else entry.names}"
        for entry in found
    ]


def read_all(files: Iterable[Path], is_wanted: Callable[[str], bool] = lambda names: True) -> Iterator[Entry]:
    """Yield the lines of the files that hold a key; files that can't be read count as empty, as in OpenSSH.

    `is_wanted` is asked with a line's host names first: decoding each key of a long file would take longer.
    """
    for file in files:
        try:
            # Notepad writes a byte order mark, which Windows' OpenSSH skips; names may be in any encoding.
            text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
        except OSError:
            continue
        yield from parse(file, text, is_wanted)


def parse(file: Path, text: str, is_wanted: Callable[[str], bool] = lambda names: True) -> Iterator[Entry]:
    """Yield the lines of the text that hold a key; comments and invalid lines are skipped, as in OpenSSH."""
    # Not parsed by paramiko.HostKeys: it drops lines with a marker, and then a revoked key would look new.
    for number, line in enumerate(text.split("\n"), 1):
        words = BLANKS.split(line.strip(" \t\r"), 4)
        if words[0].startswith("#"):
            continue
        marker = Marker.NONE
        if words[0].startswith("@"):
            try:
                marker = Marker(words.pop(0))
            except ValueError:
                continue
        if len(words) < 3 or words[0].startswith("@") or not is_wanted(words[0]):
            continue
        key = _decode_key(words[1], words[2])
        if key is not None:
            yield Entry(file, number, marker, words[0], words[1], key)


def _decode_key(key_type: str, text: str) -> bytes | None:
    """Return the key; None where the text is none, or one of another type than the line says."""
    try:
        key = base64.b64decode(text, validate=True)
        fields = Reader(key).strings()
    except ValueError:  # binascii.Error and MalformedError are such
        return None
    is_whole = fields[:1] == [key_type.encode()] and len(fields) - 1 == KEY_FIELDS.get(key_type)
    return key if is_whole else None


def matches(names: str, host: str) -> bool:
    """Whether a line's host names are about the host, with wildcards, negation and hashes as in sshd(8)."""
    host = host.lower()
    if names.startswith("|"):
        return names.startswith(HASH_MAGIC) and _matches_hash(names, host)
    found = False
    for name in names.split(","):
        if matches_pattern(host, name.removeprefix("!").lower()):
            if name.startswith("!"):
                return False
            found = True
    return found


def matches_pattern(text: str, pattern: str) -> bool:
    """Whether the text is like the pattern, in which `*` stands for any characters and `?` for one."""
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))  # the brackets of [host]:port are no set


def _matches_hash(names: str, host: str) -> bool:
    salt, _, _ = names.removeprefix(HASH_MAGIC).partition("|")
    try:
        hashed = hash_name(host, base64.b64decode(salt, validate=True))
    except ValueError:
        return False
    return hmac.compare_digest(hashed.encode(), names.encode(errors="surrogateescape"))


def hash_name(name: str, salt: bytes | None = None) -> str:
    """Return a host's name as HashKnownHosts writes it, with a new salt where none is given."""
    salt = salt or secrets.token_bytes(hashlib.sha1().digest_size)  # noqa: S324 - the format's own choice
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"{HASH_MAGIC}{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def format_line(name: str, key_type: str, key: bytes, *, hashed: bool) -> str:
    """Return the line for a new key of the host `name`, as OpenSSH writes it."""
    name = name.lower()
    return f"{hash_name(name) if hashed else name} {key_type} {base64.b64encode(key).decode()}\n"


def is_device(file: Path) -> bool:
    """Whether the path is the one that keeps nothing; OpenSSH knows it as /dev/null on Windows too."""
    return file.as_posix() == "/dev/null" or str(file).lower() == os.devnull


def append(file: Path, line: str) -> bool:
    """Add a line to the file, which is made for its user only; False where the path keeps nothing, like /dev/null.

    The file is never rewritten: it is the user's, with comments and markers that we do not write. Raises OSError.
    """
    if is_device(file):
        return False
    file.parent.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
    with _appending, open(os.open(file, flags, 0o600), "r+b", buffering=0) as stream:  # noqa: PTH123 - a descriptor
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return False
        data = line.encode()
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            data = data if stream.read(1) == b"\n" else b"\n" + data
        # One write, which the system appends as a whole: two commands may add a line at the same time.
        if stream.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
    return True
