"""Output streams whose encoding lacks a character that dls writes, as cp1252 on Windows does.

A log of a host, or a tick of ours, must not end a command: what can't be encoded is written as something like it.
"""

from __future__ import annotations

import codecs
import sys

NAME = "dls.similar"
"""Name under which the handler is known to Python's codecs."""
SIMILAR = {
    "✓": "+",
    "…": "...",
    "†": "*",
    "→": "->",
    "←": "<-",
    "·": "-",
    "–": "-",
    "—": "-",
    "×": "x",
    "│": "|",
    "━": "=",
    "●": "*",
    "─": "-",
    "›": ">",
    "•": "*",
    "█": "#",
    "░": ".",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}
"""What is written in the place of characters that dls, uv or a server's log use."""


def replace_similar(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for the characters that can't be encoded, and where to go on: an error handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(SIMILAR.get(character, "?") for character in lacking), error.end


def tolerate_what_streams_lack() -> None:
    """Let standard output and standard error write what their encoding has, and what is similar for the rest."""
    for stream in (sys.stdout, sys.stderr):
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "").replace("_", "")
        if not encoding.startswith("utf") and hasattr(stream, "reconfigure"):
            codecs.register_error(NAME, replace_similar)
            stream.reconfigure(errors=NAME)
