"""Where files of this computer's user are, and how they are written: whole or not at all, and for that user alone."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

VARIABLE = "DLS_USER_DIR"
"""Environment variable with the folder that holds all of these files, in place of the system's own folders."""


def config_folder() -> Path:
    """Return the folder of what the user writes: profiles."""
    if own := os.environ.get(VARIABLE):
        return Path(own)
    import platformdirs  # here, because few commands need it

    return platformdirs.user_config_path("dls", appauthor=False)


def state_folder() -> Path:
    """Return the folder of what dls remembers: hosts used before, agreements."""
    if own := os.environ.get(VARIABLE):
        return Path(own)
    import platformdirs

    return platformdirs.user_state_path("dls", appauthor=False)


def write_private(path: Path, text: str) -> None:
    """Write the file, which only the user can read; a reader finds the old text or the new one. Raises OSError.

    A file that is a symbolic link, as those of who keeps settings in a repository, stays one.
    """
    path = path.resolve()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
