"""Verify on the host that the code and the environment there are what was put there.

The text of this file travels in the launch script and runs in the environment's Python without `site`, before anything
of the environment or of our code is imported. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

CODE_CHANGED, ENVIRONMENT_CHANGED = 78, 79
"""Exit statuses of the check."""


class Changed(Exception):
    """Something is not as it was made; the message names it."""


def check_entry(path: Path) -> int:
    """Return the entry's mode; raises Changed when another user owns it, or can write to a directory or file."""
    found = path.lstat()
    if found.st_uid != os.geteuid():
        raise Changed(f"{path} belongs to somebody else")
    if not stat.S_ISLNK(found.st_mode) and found.st_mode & 0o022:
        raise Changed(f"others can write to {path}")
    return found.st_mode


def list_files(folder: Path) -> Iterator[Path]:
    """Yield the paths of all files below the folder; raises Changed for an entry that another user made or can change.

    Python's own caches are passed over after that check: they hold what it compiled for the same user.
    """
    for path in folder.iterdir():
        try:
            mode = check_entry(path)
        except FileNotFoundError:  # a server that starts at the same time writes its caches
            continue
        if stat.S_ISDIR(mode):
            yield from list_files(path)
        elif not stat.S_ISREG(mode):
            raise Changed(f"{path} is no file")
        elif folder.name != "__pycache__" and not path.name.startswith(".nfs"):
            yield path


def digest_code(folder: Path) -> str:
    """Return the digest of the names and contents of all files, as the laptop computes it."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in list_files(folder)):
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def digest_environment(folder: Path) -> str:
    """Return the digest of what is installed: the names in site-packages, and each package's list of files.

    Raises Changed for an entry that belongs to another user.
    """
    digest = hashlib.sha256()
    for site in sorted(folder.glob("lib/python*/site-packages")):
        for directory in (site, *site.parents[:2]):
            check_entry(directory)
        for path in sorted(site.iterdir()):
            if path.lstat().st_uid != os.geteuid():
                raise Changed(f"{path} belongs to somebody else")
            if path.name == "__pycache__" or path.name.startswith(".nfs"):
                continue
            digest.update(f"{path.name}\0".encode())
            record = path / "RECORD"
            if path.suffix == ".dist-info" and record.exists():
                digest.update(record.read_bytes())
    return digest.hexdigest()


def complete(environment: str, text: str, installed: str) -> str:
    """Return the text of complete.json with the digest of what is installed, and of the lock where that was used."""
    fields = json.loads(text)
    lock = fields.pop("lock") if installed == "locked" else None
    return json.dumps({**fields, "lock": lock, "record": digest_environment(Path(environment))})


def check(environment: str, code: str, key: str) -> tuple[int, str]:
    """Return the exit status and what is wrong; 0 and nothing when environment and code are as they were made.

    An environment of the release before has no digest in its complete.json; its owners are checked all the same.
    """
    try:
        expected = json.loads(Path(environment, "complete.json").read_text(encoding="utf-8")).get("record")
        if digest_environment(Path(environment)) != expected and expected is not None:
            raise Changed(f"what is installed in {environment} has changed")
    except (Changed, OSError, ValueError, AttributeError) as error:
        return ENVIRONMENT_CHANGED, str(error)
    try:
        if digest_code(Path(code)) != key:
            raise Changed(f"the files in {code} have changed")
    except (Changed, OSError) as error:
        return CODE_CHANGED, str(error)
    return 0, ""


if __name__ == "__main__":
    if sys.argv[1] == "complete":
        print(complete(*sys.argv[2:]))
    else:
        status, fault = check(*sys.argv[2:])
        print(fault)
        sys.exit(status)
