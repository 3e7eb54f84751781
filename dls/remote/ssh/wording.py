"""What the words of a question say about its answer: pure."""

from __future__ import annotations

ONE_TIME_WORDS = ("code", "token", "otp", "one-time", "passcode", "verification", "duo")
"""Words in a question that show that its answer can be used only once."""
NEW_PASSWORD_WORDS = ("new", "retype", "again", "confirm")
"""Words in a question for a password that is to be set, which is not the one that we know."""


def is_one_time(prompt: str) -> bool:
    """Whether the answer to a host's question can be used only once."""
    return any(word in prompt.lower() for word in ONE_TIME_WORDS)


def asks_for_password(prompt: str, echo: bool) -> bool:
    """Whether a host's question asks for the user's present password."""
    text = prompt.lower()
    is_other = is_one_time(text) or any(word in text for word in NEW_PASSWORD_WORDS)
    return "password" in text and not echo and not is_other
