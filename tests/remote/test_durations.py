"""Durations in words."""

from __future__ import annotations

import pytest

from dls.remote.durations import format_ago, format_duration, format_short


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (40.4, "40 s"),
        (119, "119 s"),
        (119.6, "2 min"),
        (120, "2 min"),
        (3599, "1 h"),
        (3600, "1 h"),
        (12000, "3 h 20 min"),
        (90000, "1 d 1 h"),
        (172800, "2 d"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    """No more exact than one needs it."""
    assert format_duration(seconds) == words


def test_short_times_and_ages() -> None:
    """A time has two digits where they are worth it; an age is no more exact than one needs it."""
    assert [format_short(each) for each in (0.0381, 0.42, 12)] == ["38 ms", "0.42 s", "12 s"]
    assert [format_ago(each) for each in (0, 40, 300, 9000, 900000)] == [
        "just now", "40 s ago", "5 min ago", "2 h ago", "10 days ago"
    ]  # fmt: skip
