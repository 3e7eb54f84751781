"""Durations as a user writes them, and as Slurm prints them: pure."""

from __future__ import annotations

import re

from dls.errors import TargetError

UNITS = {"m": 1, "h": 60, "d": 1440}
"""Minutes in the units of a duration."""


def parse_minutes(text: str) -> int:
    """Return the minutes of a duration, rounded up: `4h`, `1h30m`, `90`, `30:00`, `4:00:00`, `1-12` or `1-12:00:00`.

    A bare number is minutes, and the forms with colons are Slurm's. Raises TargetError for anything else.
    """
    wrong = TargetError(f"--time {text!r} is no duration.", "Write it as 4h, 90m, 2d, or as Slurm does: 1-12:00:00.")
    if re.fullmatch(r"([0-9]{1,6}[dhm])+", text):
        minutes = sum(int(count) * UNITS[unit] for count, unit in re.findall(r"([0-9]+)([dhm])", text))
    elif found := re.fullmatch(r"(?:([0-9]{1,4})-)?([0-9]{1,6})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?", text):
        days, first, second, third = (int(part or 0) for part in found.groups())
        has_hours = found[1] is not None or found[4] is not None
        # In Slurm's forms `10` and `10:30` begin with minutes, `1:10:30` and `2-1` with hours.
        minutes = days * 1440 + (first * 60 + second + bool(third) if has_hours else first + bool(second))
    else:
        raise wrong
    if minutes < 1:
        raise wrong
    return minutes


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration as `squeue` prints it, `1-02:03:04` or `3:04`; None for no number."""
    found = re.fullmatch(r"(?:([0-9]+)-)?(?:([0-9]+):)?([0-9]+):([0-9]+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
