"""Lines and bars of progress for a width in columns: pure, and no colours."""

from __future__ import annotations

from dls.remote.durations import format_duration
from dls.remote.progress import Transfer, format_size

BAR = "━"
REST = "─"
BAR_COLUMNS = (10, 30)
"""Fewest and most columns of a bar; where there is no room for the fewest, there is none."""
ELAPSED_SECONDS = 3.0
"""Seconds from which a step that has no size shows how long it has taken."""


def draw_bar(done: int, total: int, columns: int) -> tuple[str, str]:
    """Return the two parts of a bar of so many columns: what is done, and the rest."""
    filled = columns if done >= total else int(columns * done / total) if total > 0 else 0
    return BAR * filled, REST * (columns - filled)


def describe_bytes(transfer: Transfer) -> str:
    """Return how many bytes of how many are done, or what is to come before the first of them."""
    if transfer.total is None:
        return format_size(transfer.done)
    if not transfer.done:
        return f"{format_size(transfer.total)} to come"
    return f"{format_size(transfer.done)} of {format_size(transfer.total)}"


def lay_out(text: str, transfer: Transfer, width: int) -> tuple[str, str, str, str]:
    """Return the parts of a line that fits the width: what is done, the two parts of its bar, and the figures.

    On a narrow terminal the text gives way first, then the bar, then the rate; how much is left stays.
    """
    size, left = describe_bytes(transfer), "" if transfer.left is None else f", {format_duration(transfer.left)} left"
    rate = f", {transfer.rate / 1e6:.1f} MB/s" if transfer.rate else ""
    figures = next((each for each in (f"{size}{rate}{left}", f"{size}{left}") if len(each) <= width), size)
    columns = 0
    if transfer.total:
        room = width - len(figures) - min(len(text), 24) - 3
        columns = min(BAR_COLUMNS[1], room) if room >= BAR_COLUMNS[0] else 0
    done, rest = draw_bar(transfer.done, transfer.total or 0, columns)
    taken = len(figures) + columns + bool(columns)
    return shorten(text, width - taken - 2), done, rest, figures


def shorten(text: str, width: int) -> str:
    """Return the text, its end cut off where it is wider than the width; empty where hardly anything would be left."""
    if len(text) <= width:
        return text
    return f"{text[: width - 1]}…" if width >= 8 else ""


def describe_elapsed(seconds: float) -> str:
    """Return how long a step has taken, once that is worth a word."""
    return format_duration(seconds) if seconds >= ELAPSED_SECONDS else ""


class Pace:
    """Says which reports of progress are lines of a log: few, however many come.

    One every SECONDS at most, and of a transfer whose size is known only one for each tenth of it, or a minute.
    """

    SECONDS = 10.0
    QUIET_SECONDS = 60.0

    def __init__(self) -> None:
        self._last = float("-inf")
        self._share = -1.0

    def is_due(self, now: float, transfer: Transfer | None = None) -> bool:
        """Return whether a report at this time, in seconds, is a line; it counts as written then."""
        waited = now - self._last
        share = transfer.done / transfer.total if transfer and transfer.total else 0.0
        is_far = not (transfer and transfer.total) or share - self._share >= 0.1 or waited >= self.QUIET_SECONDS
        if waited < self.SECONDS or not is_far:
            return False
        self._last, self._share = now, share
        return True
