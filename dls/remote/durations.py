"""Durations in words: pure."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Return a duration in words, no more exact than one needs it: `40 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def format_short(seconds: float) -> str:
    """Return a short time in words: `38 ms`, `0.42 s`, `12 s`."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else format_duration(seconds)


def format_ago(seconds: float) -> str:
    """Return how long ago something was: `just now`, `40 s ago`, `2 h ago`, `10 days ago`."""
    if seconds < 1:
        return "just now"
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
