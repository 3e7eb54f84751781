"""Text of others, made safe for a terminal: pure."""

from __future__ import annotations

from dls.contract import HINT_PREFIX

NAMED = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of text, so that it reads as something else than it is."""
SEPARATORS = "\u2028\u2029"
CONTROLS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *DIRECTIONS, *SEPARATORS]
"""C0 and C1 control characters with DEL between them, and what else changes how a terminal shows the text around it."""


def _escape(control: str) -> str:
    code = ord(control)
    return NAMED.get(control) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


_ONE_LINE = str.maketrans({control: _escape(control) for control in CONTROLS})
_LINES = {code: text for code, text in _ONE_LINE.items() if chr(code) not in "\t\n"}


def printable(text: object, *, lines: bool = False) -> str:
    """Return the text with each control character replaced by its escape, in Python's notation.

    What a host says could else write to the clipboard, hide lines or look like our own. With `lines`, tabs and ends of
    lines stay.
    """
    return str(text).translate(_LINES if lines else _ONE_LINE)


def hint_text(hint: str) -> str:
    """Return a hint, made safe for a terminal; its further lines are indented, so that none looks like one of ours."""
    return printable(hint, lines=True).replace("\n", "\n" + " " * len(HINT_PREFIX))
